// What a rule may ask for beside the host: a port, the beginning of a path, a time of the week.
import type { Condition, DecisionTarget, TimeSpan } from './rule.ts';

/** Bits of what a rule looks at. */
export const LOOKS_AT_PORT = 1;
export const LOOKS_AT_PATH = 2;
export const LOOKS_AT_TIME = 4;
export const LOOKS_AT_ADDRESS = 8;

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const;
const ALL_DAYS = 127;
const MINUTES_OF_DAY = 1_440;

/** What it looks at, as bits. */
export function looksAt({ ports, path, times, resolved }: Condition): number {
  return (
    (ports ? LOOKS_AT_PORT : 0) |
    (path === undefined ? 0 : LOOKS_AT_PATH) |
    (times ? LOOKS_AT_TIME : 0) |
    (resolved ? LOOKS_AT_ADDRESS : 0)
  );
}

/** Whether it holds for a target; `routes`: what the rule does is to route, so that it may count for a whole host. */
export function holds(condition: Condition, target: Partial<DecisionTarget>, routes = true): boolean {
  const { ports, path, times, wholeHost } = condition;
  if (ports) {
    const { port } = target;
    if (port === undefined || !ports.some(({ from, to }) => port >= from && port <= to)) return false;
  }
  if (path !== undefined) {
    const asked = target.path;
    if (asked === undefined ? !(routes && wholeHost) : !asked.startsWith(path)) return false;
  }
  if (times) {
    const { minute } = target;
    if (minute === undefined || !times.some(span => isWithin(span, minute))) return false;
  }
  return true;
}

function isWithin({ days, from, to }: TimeSpan, minuteOfWeek: number): boolean {
  const day = Math.floor(minuteOfWeek / MINUTES_OF_DAY);
  const minute = minuteOfWeek % MINUTES_OF_DAY;
  const begins = (which: number) => (days & (1 << which)) !== 0;
  if (from < to) return begins(day) && minute >= from && minute < to;
  return (begins(day) && minute >= from) || (begins((day + 6) % 7) && minute < to);
}

/** The minute of the week that a clock on the wall shows, from Sunday 00:00. */
export function minuteOfWeek(date: Date): number {
  return date.getDay() * MINUTES_OF_DAY + date.getHours() * 60 + date.getMinutes();
}

/** By how much a rule with it goes before one without; less than 1, so that it stays in its class. A longer path is a smaller part of the host. */
export function precedenceOf({ ports, path, times }: Condition): number {
  return (ports ? 0.2 : 0) + (times ? 0.2 : 0) + (path === undefined ? 0 : 0.2 + Math.min(path.length, 1_000) / 5_000);
}

/** `Mon-Fri 08:00-18:00`, `Sat,Sun`, `22:00-06:00` (over midnight), several with `;` between them. A sentence where it is none. */
export function parseTimes(text: string): readonly TimeSpan[] | string {
  const spans: TimeSpan[] = [];
  for (const part of text.split(';')) {
    const span = parseSpan(part.trim());
    if (span === null) return `"${text}" is not a time: write it like "Mon-Fri 08:00-18:00"`;
    spans.push(span);
  }
  return spans;
}

function parseSpan(text: string): TimeSpan | null {
  const match = /^(?:([a-z]{3}(?:[-,][a-z]{3})*))?\s*(?:(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d))?$/i.exec(text);
  if (!match || text === '') return null;
  const days = match[1] === undefined ? ALL_DAYS : parseDays(match[1]);
  if (days === null) return null;
  if (match[2] === undefined) return { days, from: 0, to: MINUTES_OF_DAY };
  const from = Number(match[2]) * 60 + Number(match[3]);
  const to = Number(match[4]) * 60 + Number(match[5]);
  const isTime = Number(match[3]) < 60 && Number(match[5]) < 60 && from < MINUTES_OF_DAY && to <= MINUTES_OF_DAY;
  return isTime && from !== to ? { days, from, to } : null;
}

function parseDays(text: string): number | null {
  let days = 0;
  for (const range of text.toLowerCase().split(',')) {
    const [first, last, more] = range.split('-').map(day => DAYS.findIndex(name => name.toLowerCase() === day));
    const end = last ?? first!;
    if (first! < 0 || end < 0 || more !== undefined) return null;
    for (let day = first!; ; day = (day + 1) % 7) {
      days |= 1 << day;
      if (day === end) break;
    }
  }
  return days;
}

/** As a person reads it behind the host: ` port 8080, path /api/`. */
export function formatCondition({ ports, path, times, resolved }: Condition): string {
  const said: string[] = [];
  if (ports) said.push(`port ${ports.map(({ from, to }) => (from === to ? from : `${from}-${to}`)).join(', ')}`);
  if (path !== undefined) said.push(`path ${path}`);
  if (times) said.push(times.map(formatSpan).join('; '));
  if (resolved) said.push('resolved');
  return said.join(', ');
}

function formatSpan({ days, from, to }: TimeSpan): string {
  const clock = (minute: number) =>
    `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`;
  const named = days === ALL_DAYS ? '' : `${DAYS.filter((_, i) => (days & (1 << i)) !== 0).join(',')} `;
  return `${named}${clock(from)}-${clock(to)}`;
}
