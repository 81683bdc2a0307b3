// What a page can try at the control port, and what it learns by it.
import type { TestPage } from './browsers/browser.ts';

/** Everything a page may have got hold of or guessed. */
export interface Loot {
  /** `http://127.0.0.1:8228`, or the port under another name. */
  readonly base: string;
  /** The key of the paired extension. */
  readonly token: string;
  /** The key of the command line. */
  readonly cliToken: string;
  /** A pairing code that is out. */
  readonly code: string;
  /** Wrong codes that are tried beside it. */
  readonly guesses: number;
}

/** Tries everything from a page; gives back what each attempt came to, in a word. */
export function knock(page: TestPage, loot: Loot): Promise<Record<string, string>> {
  return page.evaluate(tryTheDoor, loot);
}

// Runs in the page: everything it needs stands inside.
async function tryTheDoor({ base, token, cliToken, code, guesses }: Loot): Promise<Record<string, string>> {
  const within = <T extends string>(work: Promise<T>) =>
    Promise.race([work, new Promise<'pending'>(resolve => setTimeout(() => resolve('pending'), 4_000))]).catch(
      () => 'failed',
    );
  const ask = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(base + path, init);
    if (response.type === 'opaque') return 'opaque';
    return `read ${response.status} ${JSON.stringify([...response.headers])} ${JSON.stringify(await response.text())}`;
  };
  const change = JSON.stringify({ type: 'set-site', id: 1, site: 'sneaky.test', route: 'companion' });
  const open = (protocols: string[], path = '/control') =>
    new Promise<string>(resolve => {
      const socket = new WebSocket(base.replace(/^http/, 'ws') + path, protocols);
      socket.onopen = () => {
        socket.send(change);
        resolve('open');
      };
      socket.onclose = () => resolve('closed');
    });
  const load = <K extends 'img' | 'script' | 'iframe'>(name: K, set: (element: HTMLElementTagNameMap[K]) => void) =>
    new Promise<string>(resolve => {
      const element = document.createElement(name);
      element.onload = () => resolve('loaded');
      element.onerror = () => resolve('failed');
      set(element);
      document.body.append(element);
    });
  const frameText = (frame: HTMLIFrameElement) => {
    const inside = frame.contentDocument;
    return inside === null ? 'unreadable' : (inside.body?.textContent ?? '');
  };
  const attempts: Record<string, Promise<string>> = {
    'A47 fetch': ask('/'),
    'A47 fetch no-cors': ask('/', { mode: 'no-cors' }),
    'A47 image': load('img', image => (image.src = `${base}/favicon.ico`)),
    'A47 script': load('script', script => (script.src = `${base}/proxy.pac`)),
    'A49 fetch with the key': ask('/control', { headers: { authorization: `Bearer ${cliToken}` } }),
    'A50 simple post': ask('/control', { method: 'POST', body: change, credentials: 'include', mode: 'no-cors' }),
    'A50 readable post': ask('/control', { method: 'POST', body: change }),
    'A51 preflight': ask('/control', {
      method: 'PUT',
      body: change,
      headers: { 'content-type': 'application/json', 'x-detour': '1' },
    }),
    // Chromium only; elsewhere it is left unread.
    'A51 to the local network': ask('/control', { method: 'DELETE', targetAddressSpace: 'loopback' } as RequestInit),
    'A52 no key': open([]),
    'A52 the version alone': open(['detour.v1']),
    'A52 the key of the extension': open(['detour.v1', `token.${token}`]),
    'A52 the key of the command line': open(['detour.v1', `token.${cliToken}`]),
    'A52 the key in the address': open(['detour.v1'], `/control?token=${cliToken}`),
    'A52 events': new Promise(resolve => {
      const events = new EventSource(`${base}/control?token=${cliToken}`);
      events.onopen = () => resolve('open');
      events.onerror = () => {
        events.close();
        resolve('failed');
      };
    }),
    'A54 the right code': open(['detour.v1', `code.${code}`]),
    ...Object.fromEntries(
      Array.from({ length: guesses }, (_, i) => [
        `A54 guess ${i}`,
        open(['detour.v1', `code.${String((Number(code) + 1 + i) % 1_000_000).padStart(6, '0')}`]),
      ]),
    ),
  };
  navigator.sendBeacon?.(`${base}/control`, change);
  const target = Object.assign(document.createElement('iframe'), { name: 'knock' });
  document.body.append(target);
  const form = Object.assign(document.createElement('form'), {
    method: 'post',
    action: `${base}/control`,
    target: 'knock',
  });
  form.append(Object.assign(document.createElement('input'), { name: 'message', value: change }));
  document.body.append(form);
  form.submit();
  const words: Record<string, string> = {};
  for (const [name, work] of Object.entries(attempts)) words[name] = await within(work);
  words['A50 form'] = frameText(target);
  return words;
}

/** Whether a page has learnt nothing by this: it cannot tell the port from any that answers no page. */
export function isNothing(word: string): boolean {
  return ['failed', 'opaque', 'closed', 'unreadable', ''].includes(word);
}
