// One stored answer: everything that a hit needs, made ready when it is stored, so that a hit reads no field again.
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer } from '../message/message.ts';
import type { Hit } from '../rooms.ts';
import { NO_DIRECTIVES, parseCacheControl } from './cache-control.ts';
import { formatHttpDate, parseHttpDate } from './dates.ts';
import {
  type Aging,
  allowsSharing,
  correctedInitialAge,
  dateValue,
  freshnessLifetime,
  permitsStale,
} from './policy.ts';
import type { Entry } from './store.ts';
import type { Selection } from './vary.ts';

/** An answer with its head as text: status line and fields up to and with Age and Content-Length; ours to the proxy (Cache-Status, Connection) are not in it. */
export interface PreparedAnswer extends Answer {
  readonly prepared: string;
}

export interface ServedHit extends Hit {
  readonly answer: PreparedAnswer;
}

/** A hit, ready to be sent; it holds for one second of age. */
interface Served {
  readonly age: Seconds;
  readonly hit: ServedHit;
}

/** Rough cost of the objects around an answer's bytes, beside its strings. */
const FIXED_COST: Bytes = 640;
const COST_A_STRING: Bytes = 24;

export class StoredResponse implements Aging {
  readonly entry: Entry;
  readonly url: string;
  readonly space: string;
  /** The two halves of the space, so that a lookup needs not join them. */
  readonly route: string;
  readonly partition: string;
  readonly site: string;
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
  /** Kept for offline use. */
  pinned: boolean;
  private readonly text: string;
  private served: Served | null = null;
  private servedNotModified: Served | null = null;

  constructor(entry: Entry) {
    const { lines, selection, url, space } = entry;
    const fields = new Fields(lines as string[]);
    this.entry = entry;
    this.url = url;
    this.space = space;
    const half = space.indexOf('\n');
    this.route = space.slice(0, half);
    this.partition = space.slice(half + 1);
    this.site = entry.site;
    this.selection = selection;
    this.pinned = entry.pinned;
    this.status = entry.status;
    this.respondedAt = entry.respondedAt;
    this.date = dateValue(fields, entry);
    this.initialAge = correctedInitialAge(fields, entry.ageValue, entry);
    const said = fields.get('cache-control');
    const control = said === undefined ? NO_DIRECTIVES : parseCacheControl(said);
    this.lifetime = freshnessLifetime(control, fields, entry) ?? 0;
    this.permitsStale = permitsStale(control);
    this.allowsSharing = allowsSharing(control);
    this.etag = fields.get('etag');
    const lastModified = fields.get('last-modified');
    this.modifiedAt = (lastModified === undefined ? null : parseHttpDate(lastModified, entry.respondedAt)) ?? this.date;
    this.text = headText(entry.status, entry.reason, lines);
    let strings = 0;
    for (const line of lines) strings += line.length + COST_A_STRING;
    const chosenBy = selection === null ? 0 : selection.values.reduce((sum, one) => sum + (one?.length ?? 0) + 64, 64);
    this.size =
      entry.body.length + strings + this.text.length + 2 * (space.length + url.length) + chosenBy + FIXED_COST;
  }

  /** The hit with this age. The same object within one second, so nobody may change it. */
  hit(age: Milliseconds): ServedHit {
    const seconds = Math.floor(age / 1000);
    if (this.served?.age !== seconds) {
      const { status, reason, lines, body } = this.entry;
      this.served = this.serve(seconds, status, reason, lines, this.text, status === 204 ? null : body.bytes);
    }
    return this.served.hit;
  }

  /** The 304 for a request whose condition this answer fulfils. It says what a browser updates its own copy by (RFC 9110 §15.4.5). */
  notModified(age: Milliseconds): ServedHit {
    const seconds = Math.floor(age / 1000);
    if (this.servedNotModified?.age !== seconds) {
      const { lines: all } = this.entry;
      const lines: string[] = [];
      for (let i = 0; i < all.length; i += 3) {
        const lower = all[i + 1]!;
        if (lower === 'last-modified' && this.etag !== undefined) continue;
        if (lower.startsWith('content-') && lower !== 'content-location' && !lower.startsWith('content-security-'))
          continue;
        lines.push(all[i]!, lower, all[i + 2]!);
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
        answer: {
          head: { status, reason, version: 11, fields: new Fields(flat), framing, keepAlive: true },
          body,
          prepared: `${text}${length}Age: ${age}\r\n`,
        },
        status: this.hitStatus(age * 1000),
        refresh: null,
      },
    };
  }
}

/** What is kept of the fields: not Age, which is told anew, not the framing, which is ours; with a Date where none came (RFC 9110 §6.6.1). */
export function storedLines(fields: Fields, respondedAt: EpochMilliseconds): readonly string[] {
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
