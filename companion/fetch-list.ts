// Fetches a list by a route of the file, as any request would go: by its chains in their order, with the guard in force. Nothing is kept.
import { Fault } from '../shared/fault.ts';
import { type Bytes, MiB, type Milliseconds } from '../shared/units.ts';
import type { RemoteList, Validators } from './filter/remote-lists.ts';
import { type Answer, type Body, letGo } from './message/message.ts';
import type { Rooms } from './proxy.ts';
import type { Attempt } from '../shared/exchange.ts';
import type { ResolvedRoute } from './rooms.ts';
import { ConnectionPool } from './upstream/connection-pool.ts';
import { askThrough, type Check, readCheck, TEST_LIMITS } from './way-test.ts';

/** A list that is larger is not fetched to its end. */
export const MAX_FETCHED: Bytes = 32 * MiB;
/** A fetch takes no longer, with all that it is led to. */
const TIME: Milliseconds = 60_000;
const MAX_REDIRECTS = 5;

/** What came, or null where the server says that what is there is as new as any. Throws an error whose message says what went wrong. */
export async function fetchList(
  { url }: Pick<RemoteList, 'url'>,
  validators: Validators,
  route: ResolvedRoute,
  rooms: Rooms,
  left: AbortSignal,
): Promise<(Validators & { readonly bytes: Buffer }) | null> {
  const signal = AbortSignal.any([left, AbortSignal.timeout(TIME)]);
  const asked: [string, string][] = [['Accept-Encoding', 'identity']];
  if (validators.etag !== undefined) asked.push(['If-None-Match', validators.etag]);
  if (validators.lastModified !== undefined) asked.push(['If-Modified-Since', validators.lastModified]);
  let at = url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const found = await get(at, asked, route, rooms, signal);
    if (typeof found !== 'string') return found;
    const next = new URL(found, at);
    if (next.protocol === 'http:' && new URL(at).protocol === 'https:')
      throw new Error('leads from https to http, which is not followed');
    at = next.href;
  }
  throw new Error(`leads on more than ${MAX_REDIRECTS} times`);
}

/** One request; a text where it leads on. */
async function get(
  url: string,
  asked: readonly (readonly [string, string])[],
  route: ResolvedRoute,
  rooms: Rooms,
  signal: AbortSignal,
): Promise<(Validators & { readonly bytes: Buffer }) | string | null> {
  const check = readCheck(url);
  if (typeof check === 'string') throw new Error(check);
  const pool = new ConnectionPool(() => TEST_LIMITS);
  const attempts: Attempt[] = [];
  try {
    const target = rooms.acl.admit(
      check,
      check.scheme === 'http' ? 'http' : 'connect',
      route.behindHops,
      route.route?.private ?? false,
    );
    const answer = await rooms.tryChains(route, check.host, attempts, signal, one =>
      askThrough(one, withFullPath(check, url), target, rooms, pool, asked),
    );
    return await read(answer, signal);
  } catch (error) {
    if (signal.aborted) throw new Error(`did not come within ${TIME / 1_000} s`, { cause: error });
    if (error instanceof Fault) throw new Error(`cannot be fetched: ${error.message}`, { cause: error });
    throw error;
  } finally {
    pool.close();
  }
}

/** What is told of a URL may leave things out; what is asked for does not. */
function withFullPath(check: Check, url: string): Check {
  const { pathname, search } = new URL(url);
  return { ...check, path: pathname + search };
}

async function read(
  { head, body }: Answer,
  signal: AbortSignal,
): Promise<(Validators & { readonly bytes: Buffer }) | string | null> {
  const { status, fields } = head;
  const location = fields.get('location');
  if (status >= 300 && status < 400 && status !== 304 && location !== undefined) {
    letGo(body);
    return location;
  }
  if (status === 304) {
    letGo(body);
    return null;
  }
  const coding = fields.get('content-encoding') ?? 'identity';
  if (status !== 200 || coding !== 'identity') {
    letGo(body);
    throw new Error(status === 200 ? `comes in the coding ${coding}` : `is answered with ${status}`);
  }
  return {
    bytes: await wholeBody(body, signal),
    etag: fields.get('etag'),
    lastModified: fields.get('last-modified'),
  };
}

function wholeBody(body: Body, signal: AbortSignal): Promise<Buffer> {
  if (body === null) return Promise.resolve(Buffer.alloc(0));
  if (Buffer.isBuffer(body)) return Promise.resolve(Buffer.from(body));
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    const stop = (error: Error) => {
      letGo(body);
      reject(error);
    };
    signal.addEventListener('abort', () => stop(new Error('is called off')), { once: true });
    body.start({
      write(chunk) {
        length += chunk.length;
        if (length > MAX_FETCHED) stop(new Error(`is larger than ${MAX_FETCHED / MiB} MiB`));
        else pieces.push(Buffer.from(chunk));
        return true;
      },
      end: () => resolve(Buffer.concat(pieces)),
      fail: reject,
    });
  });
}
