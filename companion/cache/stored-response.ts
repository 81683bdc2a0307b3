// One stored answer: everything that a hit needs, made ready when it is stored, so that a hit reads no field again. In the memory tier a small one lies in
// a slab, head and body together, and only what decisions need is an object; a large one, and one that is on its way, is loose.
import type { Bytes, EpochMilliseconds, Milliseconds, Seconds } from '../../shared/units.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, ReadyAnswer, ResponseHead } from '../message/message.ts';
import type { Hit } from '../rooms.ts';
import { parseHttpDate } from './dates.ts';
import { without } from './freshen.ts';
import { correctedInitialAge, dateValue, type Reuse, reuseOf, type Semantics, type Terms, termsOf } from './policy.ts';
import { offsetOf, type Page, type Slabs, type Tenant } from './slabs.ts';
import { type Entry, MemoryBody, type StoredBody } from './store.ts';
import type { Selection } from './vary.ts';

export interface ServedHit extends Hit {
  readonly answer: Answer;
}

/** Of one that does not lie in a slab. */
interface Loose {
  readonly entry: Entry;
  /** What a hit may show: without the fields that no-cache names (RFC 9111 §5.2.2.4). */
  readonly lines: readonly string[];
  readonly text: string;
  served: Served | null;
  servedNotModified: Served | null;
}

/** In front of head and body in a slab: when it was asked for, its Age field then, and where its parts end. */
const FRONT = 24;
const AGE_AT = 8;
const STATUS_LINE_AT = 12;
/** The end of the fields that a 304 has too. */
const SHARED_AT = 14;
const LINES_AT = 16;
const HEAD_AT = 18;
const BODY_AT = 20;

/** Rough cost of the objects around one that lies in a slab. */
const OBJECTS: Bytes = 560;

/** A hit, ready to be sent; it holds for one second of age. */
interface Served {
  readonly age: Seconds;
  readonly hit: ServedHit;
}

/** Rough cost of the objects around an answer's bytes, beside its strings. */
const FIXED_COST: Bytes = 640;
const COST_A_STRING: Bytes = 24;

/** Parts of `packed`: a status, milliseconds, and what is so or is not. */
const STATUS = 0x3ff;
const MILLISECONDS_AT = 10;
const HELD = 1 << 20;
const PINNED = 1 << 21;

/**
 * There may be a hundred thousand of them, so that each property counts. Properties that begin as null have their numbers in themselves, where they are
 * no larger than 31 bits; V8 gives all others of a property an object of 16 bytes each as soon as one of them is larger.
 */
export class StoredResponse implements Reuse, Tenant {
  /** The memory tier's: where it lies, and a hash of the URL. */
  page: Page | null = null;
  slot = 0;
  hash = 0;
  /** The memory tier's, of the first answer of its URL: its neighbours in its queue, which queue that is, and all answers, where it is not the only one. */
  older: StoredResponse | null = null;
  newer: StoredResponse | null = null;
  queue = 0;
  all: readonly StoredResponse[] | null = null;
  /** When the disk was told last that it is used; it came there when it came here. */
  toldAt: Seconds;
  private loose: Loose | null;
  readonly url: string;
  readonly site: string;
  private readonly whose: Space;
  readonly selection: Selection | null;
  private packed: number;
  private readonly respondedSeconds: Seconds;
  private readonly dateSeconds: Seconds | null = null;
  private readonly modifiedSeconds: Seconds | null = null;
  readonly initialAge: Milliseconds;
  private readonly terms: StoredTerms;
  /** Null: to be read from the slab. */
  private tag: string | undefined | null;
  size: Bytes;
  /** `terms`: what the fields say, where that has been read already. */
  constructor(entry: Entry, semantics: Semantics, terms?: Terms) {
    const { selection, url, status, respondedAt } = entry;
    const fields = new Fields(entry.lines as string[]);
    this.url = url;
    this.whose = spaceNamed(entry.space);
    this.site = siteNamed(entry.site);
    this.selection = selection === null ? null : selectionLike(selection);
    const whole = Math.floor(respondedAt / 1000);
    this.packed = status | ((respondedAt - whole * 1000) << MILLISECONDS_AT) | (entry.pinned ? PINNED : 0);
    this.respondedSeconds = whole;
    this.toldAt = whole;
    this.initialAge = correctedInitialAge(fields, entry.ageValue, entry);
    const { control, lifetime } = terms ?? termsOf(status, fields, entry, semantics);
    this.terms = termsLike(lifetime, reuseOf(control, semantics.shared), semantics.shared);
    this.tag = fields.get('etag');
    const date = dateValue(fields, entry);
    const lastModified = fields.get('last-modified');
    const modified = (lastModified === undefined ? null : parseHttpDate(lastModified, respondedAt)) ?? date;
    this.dateSeconds = date / 1000;
    this.modifiedSeconds = modified / 1000;
    const lines = without(control.noCacheFields, entry.lines);
    const text = headText(status, entry.reason, lines);
    this.loose = { entry, lines, text, served: null, servedNotModified: null };
    let strings = 0;
    for (const line of lines) strings += line.length + COST_A_STRING;
    const chosenBy = selection === null ? 0 : selection.values.reduce((sum, one) => sum + (one?.length ?? 0) + 64, 64);
    this.size =
      entry.body.length + strings + text.length + 2 * (entry.space.length + url.length) + chosenBy + FIXED_COST;
  }

  get status(): number {
    return this.packed & STATUS;
  }

  get respondedAt(): EpochMilliseconds {
    return this.respondedSeconds * 1000 + ((this.packed >> MILLISECONDS_AT) & STATUS);
  }

  get date(): EpochMilliseconds {
    return Math.round(this.dateSeconds! * 1000);
  }

  /** The validator by date: Last-Modified, else Date, else when it came (RFC 9111 §4.3.2). */
  get modifiedAt(): EpochMilliseconds {
    return Math.round(this.modifiedSeconds! * 1000);
  }

  get lifetime(): Milliseconds {
    return this.terms.lifetime;
  }

  get mustValidate(): boolean {
    return this.terms.mustValidate;
  }

  get permitsStale(): boolean {
    return this.terms.permitsStale;
  }

  get staleWhileRevalidate(): Milliseconds {
    return this.terms.staleWhileRevalidate;
  }

  get staleIfError(): Milliseconds | null {
    return this.terms.staleIfError;
  }

  get allowsSharing(): boolean {
    return this.terms.allowsSharing;
  }

  /** Kept for offline use. */
  get pinned(): boolean {
    return (this.packed & PINNED) !== 0;
  }

  set pinned(pinned: boolean) {
    this.packed = pinned ? this.packed | PINNED : this.packed & ~PINNED;
  }

  /** Somebody needs it later: it stays by itself. */
  private get isHeld(): boolean {
    return (this.packed & HELD) !== 0;
  }

  get etag(): string | undefined {
    if (this.tag === null) {
      const tag = this.field('etag');
      // Not as a piece of the whole head.
      this.tag = tag === undefined ? tag : Buffer.from(tag, 'latin1').toString('latin1');
    }
    return this.tag;
  }

  get space(): string {
    return this.whose.name;
  }

  get route(): string {
    return this.whose.route;
  }

  get partition(): string {
    return this.whose.partition;
  }

  /** Of one that lies in a slab a copy is made each time. */
  get entry(): Entry {
    return this.loose?.entry ?? this.taken();
  }

  /** As `entry.partial`, at no cost. */
  get partial(): Entry['partial'] {
    return this.loose === null ? null : this.loose.entry.partial;
  }

  /** Its body, where that is not in memory. */
  get elsewhere(): StoredBody | null {
    return this.loose === null || this.loose.entry.body.bytes !== null ? null : this.loose.entry.body;
  }

  /** As `entry.body.length`, at no cost. */
  get length(): Bytes {
    return this.loose?.entry.body.length ?? this.at(BODY_AT);
  }

  get lastModified(): string | undefined {
    return this.field('last-modified');
  }

  private field(lower: string): string | undefined {
    return new Fields((this.loose?.entry.lines ?? this.lyingLines()) as string[]).get(lower);
  }

  /** The hit with this age. Nobody may change it; where its answer is `ready`, it must be sent at once. */
  hit(age: Milliseconds): ServedHit {
    const seconds = Math.floor(age / 1000);
    const { loose } = this;
    if (loose === null) return this.lying(seconds, false);
    const { status, reason, body } = loose.entry;
    if (loose.served?.age !== seconds) {
      loose.served = this.serve(seconds, status, reason, loose.lines, loose.text, status === 204 ? null : body.bytes);
    }
    const { hit } = loose.served;
    return body.bytes === null && status !== 204 ? { ...hit, answer: this.opened(hit.answer) } : hit;
  }

  /** The 304 for a request whose condition this answer fulfils. It says what a browser updates its own copy by (RFC 9110 §15.4.5). */
  notModified(age: Milliseconds): ServedHit {
    const seconds = Math.floor(age / 1000);
    const { loose } = this;
    if (loose === null) return this.lying(seconds, true);
    if (loose.servedNotModified?.age !== seconds) {
      const lines = this.linesOf304(loose.lines);
      const reason = 'Not Modified';
      loose.servedNotModified = this.serve(seconds, 304, reason, lines, headText(304, reason, lines), null);
    }
    return loose.servedNotModified.hit;
  }

  // In a slab -------------------------------------------------------------------------------------------------------------------------------

  /** Lies there from now on, if it is small and whole. */
  moveInto(slabs: Slabs): void {
    const { loose } = this;
    if (loose === null || this.isHeld) return;
    const { entry, lines } = loose;
    const { bytes } = entry.body;
    if (entry.partial !== null || bytes === null) return;
    const statusLine = `HTTP/1.1 ${entry.status} ${entry.reason}\r\n`;
    // What a 304 has too stands first (the order of fields with different names says nothing: RFC 9110 §5.3).
    let [first, others] = ['', ''];
    for (let i = 0; i < lines.length; i += 3) {
      const line = `${lines[i]!}: ${lines[i + 2]!}\r\n`;
      if (this.isIn304(lines[i + 1]!)) first += line;
      else others += line;
    }
    const all = statusLine + first + others;
    const head = this.status === 204 ? all : `${all}Content-Length: ${bytes.length}\r\n`;
    const needed = FRONT + head.length + bytes.length;
    const slotSize = lines === entry.lines ? slabs.slotSize(needed) : 0;
    if (slotSize === 0) {
      this.own(loose, bytes);
      return;
    }
    slabs.rent(this, needed);
    const at = offsetOf(this);
    const to = this.page!.bytes;
    to.writeDoubleLE(entry.requestedAt, at);
    to.writeUInt32LE(entry.ageValue, at + AGE_AT);
    to.writeUInt16LE(statusLine.length, at + STATUS_LINE_AT);
    to.writeUInt16LE(statusLine.length + first.length, at + SHARED_AT);
    to.writeUInt16LE(all.length, at + LINES_AT);
    to.writeUInt16LE(head.length, at + HEAD_AT);
    to.writeUInt16LE(bytes.length, at + BODY_AT);
    to.write(head, at + FRONT, 'latin1');
    bytes.copy(to, at + FRONT + head.length);
    this.size += slotSize + OBJECTS - needed - FIXED_COST;
    this.loose = null;
    this.tag = null;
  }

  /** It stays loose. Memory that it shares with others must not stay for its sake. */
  private own(loose: Loose, bytes: Buffer): void {
    if (bytes.buffer.byteLength <= 2 * bytes.length) return;
    const body = Buffer.allocUnsafeSlow(bytes.length);
    bytes.copy(body);
    this.loose = { ...loose, entry: { ...loose.entry, body: new MemoryBody(body) }, served: null };
  }

  /** The slot is given back. What lay there is gone for all who have this still. */
  moveOut(): void {
    this.page?.slabs.release(this);
  }

  /** To be called by who will need this later than at once: it lies by itself then, whatever becomes of the slot. */
  hold(): void {
    this.packed |= HELD;
    if (this.page === null) return;
    const { entry } = this;
    const text = headText(entry.status, entry.reason, entry.lines);
    this.loose = { entry, lines: entry.lines, text, served: null, servedNotModified: null };
    this.page.slabs.release(this);
  }

  private at(which: number): number {
    if (this.page === null) throw new Error('what was stored has gone');
    return this.page.halves[(offsetOf(this) + which) >> 1]!;
  }

  private lyingText(from: number, to: number): string {
    const at = offsetOf(this) + FRONT;
    return this.page!.bytes.toString('latin1', at + from, at + to);
  }

  private lyingLines(): string[] {
    const text = this.lyingText(this.at(STATUS_LINE_AT), this.at(LINES_AT));
    const lines: string[] = [];
    for (let from = 0; from < text.length;) {
      const colon = text.indexOf(': ', from);
      const end = text.indexOf('\r\n', from);
      const name = text.slice(from, colon);
      lines.push(name, name.toLowerCase(), text.slice(colon + 2, end));
      from = end + 2;
    }
    return lines;
  }

  private lyingBody(): Buffer {
    const length = this.at(BODY_AT);
    const from = offsetOf(this) + FRONT + this.at(HEAD_AT);
    const body = Buffer.allocUnsafeSlow(length);
    this.page!.bytes.copy(body, 0, from, from + length);
    return body;
  }

  private taken(): Entry {
    const statusLine = this.lyingText(0, this.at(STATUS_LINE_AT));
    const at = offsetOf(this);
    return {
      url: this.url,
      space: this.space,
      site: this.site,
      selection: this.selection,
      status: this.status,
      reason: statusLine.slice(13, -2),
      lines: this.lyingLines(),
      requestedAt: this.page!.bytes.readDoubleLE(at),
      respondedAt: this.respondedAt,
      ageValue: this.page!.bytes.readUInt32LE(at + AGE_AT),
      body: new MemoryBody(this.lyingBody()),
      partial: null,
      pinned: this.pinned,
    };
  }

  private lying(age: Seconds, asNotModified: boolean): ServedHit {
    const answer = new LyingAnswer(this, asNotModified, ageLine(age));
    return { kind: 'hit', answer, status: this.hitStatus(age * 1000), refresh: null };
  }

  /** @internal For LyingAnswer: what it would be if it were loose. */
  asLoose(age: Seconds, asNotModified: boolean): Answer {
    const { status, reason, lines, body } = this.entry;
    const shown = asNotModified ? this.linesOf304(lines) : lines;
    const [code, phrase] = asNotModified ? ([304, 'Not Modified'] as const) : ([status, reason] as const);
    const bytes = asNotModified || status === 204 ? null : body.bytes;
    return this.serve(age, code, phrase, shown, headText(code, phrase, shown), bytes).hit.answer;
  }

  /** @internal Bytes of head and body. */
  readyLength(asNotModified: boolean): number {
    return asNotModified ? this.at(SHARED_AT) + NOT_MODIFIED.length : this.at(HEAD_AT) + this.at(BODY_AT);
  }

  /** @internal See ReadyAnswer. */
  headInto(into: Buffer, asNotModified: boolean): number {
    const from = offsetOf(this) + FRONT;
    const { bytes } = this.page!;
    if (!asNotModified) return bytes.copy(into, 0, from, from + this.at(HEAD_AT));
    const at = into.write(NOT_MODIFIED, 0, 'latin1');
    return at + bytes.copy(into, at, from + this.at(STATUS_LINE_AT), from + this.at(SHARED_AT));
  }

  /** @internal See ReadyAnswer. */
  bodyInto(into: Buffer, at: number): number {
    const from = offsetOf(this) + FRONT + this.at(HEAD_AT);
    return at + this.page!.bytes.copy(into, at, from, from + this.at(BODY_AT));
  }

  // Loose or not ----------------------------------------------------------------------------------------------------------------------------

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
    const ttl = Math.floor(lifetime / 1000) - Math.floor(age / 1000);
    if (ttl !== lastStatus.ttl) lastStatus = { ttl, text: `hit; ttl=${ttl}` };
    return lastStatus.text;
  }

  /** With the body that is elsewhere. */
  private opened<A extends Answer>(answer: A): A {
    const { body } = this.entry;
    const framing = { kind: 'length', length: body.length } as const;
    return { ...answer, head: { ...answer.head, framing }, body: body.open(0, body.length) };
  }

  private isIn304(lower: string): boolean {
    if (lower === 'last-modified') return this.etag === undefined;
    return !lower.startsWith('content-') || lower === 'content-location' || lower.startsWith('content-security-');
  }

  private linesOf304(all: readonly string[]): string[] {
    const lines: string[] = [];
    for (let i = 0; i < all.length; i += 3) {
      if (this.isIn304(all[i + 1]!)) lines.push(all[i]!, all[i + 1]!, all[i + 2]!);
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
  return `HTTP/1.1 ${status} ${reason}\r\n${textOf(lines)}`;
}

function textOf(lines: readonly string[]): string {
  let text = '';
  for (let i = 0; i < lines.length; i += 3) text += `${lines[i]!}: ${lines[i + 2]!}\r\n`;
  return text;
}

/** A hit whose bytes lie in a slab. Head and body are made only for who asks for them. */
class LyingAnswer implements Answer, ReadyAnswer {
  readonly age: string;
  private readonly stored: StoredResponse;
  private readonly asNotModified: boolean;
  private loose: Answer | null = null;

  constructor(stored: StoredResponse, asNotModified: boolean, age: string) {
    this.stored = stored;
    this.asNotModified = asNotModified;
    this.age = age;
  }

  get ready(): ReadyAnswer | undefined {
    return this.stored.page === null ? undefined : this;
  }

  get status(): number {
    return this.asNotModified ? 304 : this.stored.status;
  }

  get length(): number {
    return this.stored.readyLength(this.asNotModified);
  }

  get head(): ResponseHead {
    return this.asLoose.head;
  }

  get body(): Answer['body'] {
    return this.asLoose.body;
  }

  get prepared(): string | undefined {
    return this.asLoose.prepared;
  }

  headInto(into: Buffer): number {
    return this.stored.headInto(into, this.asNotModified);
  }

  bodyInto(into: Buffer, at: number): number {
    return this.asNotModified ? at : this.stored.bodyInto(into, at);
  }

  private get asLoose(): Answer {
    return (this.loose ??= this.stored.asLoose(Number(this.age.slice(5)), this.asNotModified));
  }
}

const NOT_MODIFIED = 'HTTP/1.1 304 Not Modified\r\n';
// The same for many answers in a row.
let lastStatus = { ttl: NaN, text: '' };
let lastAge = { age: NaN, text: '' };

function ageLine(age: Seconds): string {
  if (age !== lastAge.age) lastAge = { age, text: `Age: ${age}\r\n` };
  return lastAge.text;
}

/** A space, and its two halves, so that a lookup needs not join them. */
interface Space {
  readonly name: string;
  readonly route: string;
  readonly partition: string;
}

/** Names that many answers share: each is kept once. The maps are dropped whole when they are full. */
const MAX_NAMES = 1_000;
const MAX_KEY = 256;
const spaces = new Map<string, Space>();
const sites = new Map<string, string>();

function spaceNamed(name: string): Space {
  let space = spaces.get(name);
  if (space === undefined) {
    const half = name.indexOf('\n');
    if (spaces.size >= MAX_NAMES) spaces.clear();
    spaces.set(name, (space = { name, route: name.slice(0, half), partition: name.slice(half + 1) }));
  }
  return space;
}

/** The part of Reuse that many answers share. */
type StoredTerms = Omit<Reuse, 'respondedAt' | 'initialAge' | 'status'>;
const termsKnown = new Map<string, StoredTerms>();

function termsLike(lifetime: Milliseconds, reuse: ReturnType<typeof reuseOf>, shared: boolean): StoredTerms {
  const { mustValidate, permitsStale, staleWhileRevalidate, staleIfError } = reuse;
  const allowsSharing = reuse.allowsSharing || !shared;
  const flags = (mustValidate ? 1 : 0) | (permitsStale ? 2 : 0) | (allowsSharing ? 4 : 0);
  const key = `${lifetime} ${flags} ${staleWhileRevalidate} ${staleIfError}`;
  let terms = termsKnown.get(key);
  if (terms === undefined) {
    if (termsKnown.size >= MAX_NAMES) termsKnown.clear();
    terms = { lifetime, mustValidate, permitsStale, staleWhileRevalidate, staleIfError, allowsSharing };
    termsKnown.set(key, terms);
  }
  return terms;
}

const selections = new Map<string, Selection>();

function selectionLike(selection: Selection): Selection {
  const { names, values } = selection;
  const key = JSON.stringify([names, values.map(value => value ?? null)]);
  // What is long is seldom the same.
  if (key.length > MAX_KEY) return selection;
  let known = selections.get(key);
  if (known === undefined) {
    if (selections.size >= MAX_NAMES) selections.clear();
    selections.set(key, (known = selection));
  }
  return known;
}

function siteNamed(name: string): string {
  const site = sites.get(name);
  if (site !== undefined) return site;
  if (sites.size >= MAX_NAMES) sites.clear();
  sites.set(name, name);
  return name;
}
