// One stored answer: everything that a hit needs, made ready when it is stored, so that a hit reads no field again.
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, ResponseHead } from '../message/message.ts';
import type { Hit } from '../rooms.ts';
import type { CacheControl } from './cache-control.ts';
import { formatHttpDate, parseHttpDate } from './dates.ts';
import { type Aging, allowsSharing, correctedInitialAge, dateValue, permitsStale, type Times } from './policy.ts';
import type { Selection } from './vary.ts';

/** An answer with its head as text: status line and fields up to and with Age and Content-Length; ours to the proxy (Cache-Status, Connection) are not in it. */
export interface PreparedAnswer extends Answer {
  readonly prepared: string;
}

/** A hit, ready to be sent. */
export interface ServedHit extends Hit {
  readonly answer: PreparedAnswer;
}

/** It holds for one second of age. */
interface Served {
  readonly age: Seconds;
  readonly hit: ServedHit;
}

/** Rough cost of the objects around an answer's bytes, beside its strings. */
const FIXED_COST: Bytes = 640;
const COST_A_STRING: Bytes = 24;

export class StoredResponse implements Aging {
  readonly url: string;
  readonly selection: Selection | null;
  readonly status: number;
  readonly respondedAt: EpochMilliseconds;
  readonly date: EpochMilliseconds;
  readonly initialAge: Milliseconds;
  readonly lifetime: Milliseconds;
  readonly permitsStale: boolean;
  /** RFC 9111 §3.5. */
  readonly allowsSharing: boolean;
  readonly etag: string | undefined;
  /** The validator by date: Last-Modified, else Date, else when it came (RFC 9111 §4.3.2). */
  readonly modifiedAt: EpochMilliseconds;
  readonly size: Bytes;
  /** Flat triples: Name, name, value. */
  readonly lines: readonly string[];
  /** Of the body. */
  readonly length: Bytes;
  /** Kept for offline use. */
  pinned = false;
  private readonly reason: string;
  private readonly body: Buffer | null;
  private readonly text: string;
  private served: Served | null = null;
  private servedNotModified: Served | null = null;

  /** `head` without hop-by-hop fields. `body` must be the cache's own bytes, of exactly its length. */
  constructor(
    key: string,
    url: string,
    selection: Selection | null,
    head: ResponseHead,
    body: Buffer,
    control: CacheControl,
    lifetime: Milliseconds,
    times: Times,
  ) {
    const { fields } = head;
    this.url = url;
    this.selection = selection;
    this.status = head.status;
    this.reason = head.reason;
    this.respondedAt = times.respondedAt;
    this.date = dateValue(fields, times);
    this.initialAge = correctedInitialAge(fields, times);
    this.lifetime = lifetime;
    this.permitsStale = permitsStale(control);
    this.allowsSharing = allowsSharing(control);
    this.etag = fields.get('etag');
    const lastModified = fields.get('last-modified');
    this.modifiedAt = (lastModified === undefined ? null : parseHttpDate(lastModified, times.respondedAt)) ?? this.date;
    this.length = body.length;
    this.body = head.status === 204 ? null : body;
    this.lines = storedLines(fields, times.respondedAt);
    this.text = headText(head.status, head.reason, this.lines);
    let strings = 0;
    for (const line of this.lines) strings += line.length + COST_A_STRING;
    const chosenBy = selection === null ? 0 : selection.values.reduce((sum, one) => sum + (one?.length ?? 0) + 64, 64);
    this.size = body.length + strings + this.text.length + 2 * (key.length + url.length) + chosenBy + FIXED_COST;
  }

  /** The hit with this age. The same object within one second, so nobody may change it. */
  hit(age: Milliseconds): Served['hit'] {
    const seconds = Math.floor(age / 1000);
    if (this.served?.age !== seconds) {
      this.served = this.serve(seconds, this.status, this.reason, this.lines, this.text, this.body);
    }
    return this.served.hit;
  }

  /** The 304 for a request whose condition this answer fulfils. It says what a browser updates its own copy by (RFC 9110 §15.4.5). */
  notModified(age: Milliseconds): Served['hit'] {
    const seconds = Math.floor(age / 1000);
    if (this.servedNotModified?.age !== seconds) {
      const lines: string[] = [];
      for (let i = 0; i < this.lines.length; i += 3) {
        const lower = this.lines[i + 1]!;
        if (lower === 'last-modified' && this.etag !== undefined) continue;
        if (lower.startsWith('content-') && lower !== 'content-location' && !lower.startsWith('content-security-'))
          continue;
        lines.push(this.lines[i]!, lower, this.lines[i + 2]!);
      }
      const reason = 'Not Modified';
      this.servedNotModified = this.serve(seconds, 304, reason, lines, headText(304, reason, lines), null);
    }
    return this.servedNotModified.hit;
  }

  /** Cache-Status parameters of a hit with this age. */
  hitStatus(age: Milliseconds): string {
    return `hit; ttl=${Math.floor(this.lifetime / 1000) - Math.floor(age / 1000)}`;
  }

  private serve(
    age: Seconds,
    status: number,
    reason: string,
    lines: readonly string[],
    text: string,
    body: Buffer | null,
  ): Served {
    const flat = lines.slice();
    flat.push('Age', 'age', String(age));
    const framing = body === null ? ({ kind: 'none' } as const) : ({ kind: 'length', length: body.length } as const);
    const length = body === null ? '' : `Content-Length: ${body.length}\r\n`;
    return {
      age,
      hit: {
        kind: 'hit',
        refresh: null,
        answer: {
          head: { status, reason, version: 11, fields: new Fields(flat), framing, keepAlive: true },
          body,
          prepared: `${text}${length}Age: ${age}\r\n`,
        },
        status: this.hitStatus(age * 1000),
      },
    };
  }
}

/** What is kept of the fields: not Age, which is told anew, not the framing, which is ours; with a Date where none came (RFC 9110 §6.6.1). */
function storedLines(fields: Fields, respondedAt: EpochMilliseconds): readonly string[] {
  const lines: string[] = [];
  let hasDate = false;
  for (let i = 0; i < fields.length; i++) {
    const lower = fields.lowerNameAt(i);
    if (lower === 'age' || lower === 'content-length' || lower === 'transfer-encoding' || lower === 'trailer') continue;
    if (lower === 'date') hasDate = true;
    lines.push(fields.nameAt(i), lower, fields.valueAt(i));
  }
  if (!hasDate) lines.push('Date', 'date', formatHttpDate(respondedAt));
  return lines;
}

function headText(status: number, reason: string, lines: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${reason}\r\n`;
  for (let i = 0; i < lines.length; i += 3) text += `${lines[i]!}: ${lines[i + 2]!}\r\n`;
  return text;
}
