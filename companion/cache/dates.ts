// HTTP dates: exactly the three forms of RFC 9110 §5.6.7, and nothing else (Date.parse takes much more, and local time too).
import type { EpochMilliseconds } from '../../shared/units.ts';

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'];
const MONTH = `(${MONTHS.join('|')})`;
const TIME = '(\\d\\d):(\\d\\d):(\\d\\d)';
const SHORT_DAY = '(?:mon|tue|wed|thu|fri|sat|sun)';
const LONG_DAY = '(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)';

// A cache matches without regard to case (RFC 9111 §4.2).
const IMF_FIXDATE = new RegExp(`^${SHORT_DAY}, (\\d\\d) ${MONTH} (\\d{4}) ${TIME} gmt$`, 'i');
const RFC850_DATE = new RegExp(`^${LONG_DAY}, (\\d\\d)-${MONTH}-(\\d\\d) ${TIME} gmt$`, 'i');
const ASCTIME_DATE = new RegExp(`^${SHORT_DAY} ${MONTH} (\\d\\d| \\d) ${TIME} (\\d{4})$`, 'i');

/** The moment that an HTTP date names, or null where the text is none. `now` decides the century of a two-digit year. */
export function parseHttpDate(text: string, now: EpochMilliseconds): EpochMilliseconds | null {
  const imf = IMF_FIXDATE.exec(text);
  if (imf) return moment(Number(imf[3]), imf[2]!, imf[1]!, imf[4]!, imf[5]!, imf[6]!);
  const asctime = ASCTIME_DATE.exec(text);
  if (asctime) return moment(Number(asctime[6]), asctime[1]!, asctime[2]!, asctime[3]!, asctime[4]!, asctime[5]!);
  const old = RFC850_DATE.exec(text);
  if (!old) return null;
  // RFC 9110 §5.6.7: what seems more than 50 years ahead is the most recent past year with the same last two digits.
  const thisYear = new Date(now).getUTCFullYear();
  const year = thisYear - (thisYear % 100) + 100 + Number(old[3]);
  const limit = new Date(now).setUTCFullYear(thisYear + 50);
  for (const candidate of [year, year - 100, year - 200]) {
    const at = moment(candidate, old[2]!, old[1]!, old[4]!, old[5]!, old[6]!);
    if (at !== null && at <= limit) return at;
  }
  return null;
}

/** The preferred form, IMF-fixdate. */
export function formatHttpDate(at: EpochMilliseconds): string {
  return new Date(at).toUTCString();
}

function moment(year: number, month: string, day: string, h: string, m: string, s: string): EpochMilliseconds | null {
  const monthIndex = MONTHS.indexOf(month.toLowerCase());
  const [dayNumber, hour, minute, second] = [Number(day), Number(h), Number(m), Number(s)];
  // 60 is a leap second.
  if (hour > 23 || minute > 59 || second > 60) return null;
  const date = new Date(0);
  date.setUTCFullYear(year, monthIndex, dayNumber);
  if (date.getUTCMonth() !== monthIndex || date.getUTCDate() !== dayNumber) return null;
  return date.setUTCHours(hour, minute, second);
}
