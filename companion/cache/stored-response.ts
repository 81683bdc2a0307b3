// One stored answer: everything that a hit needs, made ready when it is stored, so that a hit reads no field again.
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer } from '../message/message.ts';
import type { Hit } from '../rooms.ts';
import { parseHttpDate } from './dates.ts';
import { without } from './freshen.ts';
import { correctedInitialAge, dateValue, type Reuse, reuseOf, type Semantics, type Terms, termsOf } from './policy.ts';
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

export class StoredResponse implements Reuse {
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
  readonly mustValidate: boolean;
  readonly permitsStale: boolean;
  readonly staleWhileRevalidate: Milliseconds;
  readonly staleIfError: Milliseconds | null;
  readonly allowsSharing: boolean;
  readonly etag: string | undefined;
  readonly lastModified: string | undefined;
  /** The validator by date: Last-Modified, else Date, else when it came (RFC 9111 §4.3.2). */
  readonly modifiedAt: EpochMilliseconds;
  readonly size: Bytes;
  /** Kept for offline use. */
  pinned: boolean;
  /** Since when it is being asked for behind a hit; 0: it is not. */
  refreshingSince: EpochMilliseconds = 0;
  /** What a hit may show: without the fields that no-cache names (RFC 9111 §5.2.2.4). */
  private readonly lines: readonly string[];
  private readonly text: string;
  private served: Served | null = null;
  private servedNotModified: Served | null = null;

  /** `terms`: what the fields say, where that has been read already. */
  constructor(entry: Entry, semantics: Semantics, terms?: Terms) {
    const { selection, url, space, status } = entry;
    const fields = new Fields(entry.lines as string[]);
    this.entry = entry;
    this.url = url;
    this.space = space;
    const half = space.indexOf('\n');
    this.route = space.slice(0, half);
    this.partition = space.slice(half + 1);
    this.site = entry.site;
    this.selection = selection;
    this.pinned = entry.pinned;
    this.status = status;
    this.respondedAt = entry.respondedAt;
    this.date = dateValue(fields, entry);
    this.initialAge = correctedInitialAge(fields, entry.ageValue, entry);
    const { control, lifetime } = terms ?? termsOf(status, fields, entry, semantics);
    const reuse = reuseOf(control, semantics.shared);
    this.lifetime = lifetime;
    this.mustValidate = reuse.mustValidate;
    this.permitsStale = reuse.permitsStale;
    this.staleWhileRevalidate = reuse.staleWhileRevalidate;
    this.staleIfError = reuse.staleIfError;
    this.allowsSharing = reuse.allowsSharing || !semantics.shared;
    this.etag = fields.get('etag');
    const lastModified = fields.get('last-modified');
    this.lastModified = lastModified;
    this.modifiedAt = (lastModified === undefined ? null : parseHttpDate(lastModified, entry.respondedAt)) ?? this.date;
    const lines = without(control.noCacheFields, entry.lines);
    this.lines = lines;
    this.text = headText(status, entry.reason, lines);
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
      const { status, reason, body } = this.entry;
      this.served = this.serve(seconds, status, reason, this.lines, this.text, status === 204 ? null : body.bytes);
    }
    const { hit } = this.served;
    return this.entry.body.bytes === null && this.status !== 204 ? { ...hit, answer: this.opened(hit.answer) } : hit;
  }

  /** The 304 for a request whose condition this answer fulfils. It says what a browser updates its own copy by (RFC 9110 §15.4.5). */
  notModified(age: Milliseconds): ServedHit {
    const seconds = Math.floor(age / 1000);
    if (this.servedNotModified?.age !== seconds) {
      const lines = this.linesOf304(this.lines);
      const reason = 'Not Modified';
      this.servedNotModified = this.serve(seconds, 304, reason, lines, headText(304, reason, lines), null);
    }
    return this.servedNotModified.hit;
  }

  /** The answer just after the origin has said that it holds: with all its fields, and with an Age only where that came with a 304 (RFC 9111 §5.1). */
  validated(age: string | undefined, asNotModified: boolean): Answer {
    const { reason, body } = this.entry;
    const flat = (asNotModified ? this.linesOf304(this.entry.lines) : this.entry.lines).slice();
    if (age !== undefined) flat.push('Age', 'age', age);
    const hasBody = !asNotModified && this.status !== 204;
    const answer: Answer = {
      head: {
        status: asNotModified ? 304 : this.status,
        reason: asNotModified ? 'Not Modified' : reason,
        version: 11,
        fields: new Fields(flat),
        framing: hasBody ? { kind: 'length', length: body.length } : { kind: 'none' },
        keepAlive: true,
      },
      body: hasBody ? body.bytes : null,
    };
    return hasBody && body.bytes === null ? this.opened(answer) : answer;
  }

  /** Cache-Status parameters of a hit with this age; `lifetime` where it is not the answer's own. */
  hitStatus(age: Milliseconds, lifetime: Milliseconds = this.lifetime): string {
    return `hit; ttl=${Math.floor(lifetime / 1000) - Math.floor(age / 1000)}`;
  }

  /** With the body that is elsewhere. */
  private opened<A extends Answer>(answer: A): A {
    const { body } = this.entry;
    const framing = { kind: 'length', length: body.length } as const;
    return { ...answer, head: { ...answer.head, framing }, body: body.open(0, body.length) };
  }

  private linesOf304(all: readonly string[]): string[] {
    const lines: string[] = [];
    for (let i = 0; i < all.length; i += 3) {
      const lower = all[i + 1]!;
      if (lower === 'last-modified' && this.etag !== undefined) continue;
      if (lower.startsWith('content-') && lower !== 'content-location' && !lower.startsWith('content-security-'))
        continue;
      lines.push(all[i]!, lower, all[i + 2]!);
    }
    return lines;
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

function headText(status: number, reason: string, lines: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${reason}\r\n`;
  for (let i = 0; i < lines.length; i += 3) text += `${lines[i]!}: ${lines[i + 2]!}\r\n`;
  return text;
}
