// Every way that a page has to send a request to a service of this machine, each with a path of its own, so that the service knows what arrived.
import type { TestPage } from './browsers/browser.ts';
import type { Victim } from './victim.ts';

/** Other spellings of this machine. The victim listens on all of them. */
const SPELLINGS = [
  '[::1]',
  'localhost',
  'x.localhost',
  'localhost.',
  '127.1',
  '2130706433',
  '0x7f000001',
  '127.0.0.2',
  '0.0.0.0',
  '[::ffff:127.0.0.1]',
];

interface Plan {
  readonly base: string;
  /** The same service under a public name. */
  readonly named: string;
  readonly spelled: readonly string[];
  readonly tag: string;
  /** One way of each sort is enough. */
  readonly few: boolean;
}

/** What is tried where few ways are enough. */
export const FEW = 'fetch websocket image frame worker sandboxed';

/** Has the page try everything, or FEW; the page stays as it is. `named` resolves to this machine. */
export async function attackFrom(
  page: TestPage,
  victim: Victim,
  named: string,
  tag: string,
  few = false,
): Promise<void> {
  const isSecure = (await page.evaluate(() => location.protocol)) === 'https:';
  await page.evaluate(tryEverything, {
    base: `http://127.0.0.1:${victim.port}`,
    named: isSecure ? `https://${named}:${victim.securePort}` : `http://${named}:${victim.port}`,
    spelled: SPELLINGS.map(host => `http://${host}:${victim.port}`),
    tag,
    few,
  });
}

// Runs in the page: everything it needs stands inside.
function tryEverything({ base, named, spelled, tag, few }: Plan): void {
  const at = (way: string, where = base) => `${where}/${tag}/${way}`;
  const socketAt = (way: string, where = base) => at(way, where).replace(/^http/, 'ws');
  const attempt = (act: () => unknown) => {
    try {
      void Promise.resolve(act()).catch(() => {});
    } catch {
      // A way that this browser does not have.
    }
  };
  /** A script that asks, for frames and workers. */
  const asking = (way: string) =>
    `try{fetch(${JSON.stringify(at(way))},{mode:'no-cors'}).catch(()=>{})}catch{}` +
    `try{new WebSocket(${JSON.stringify(socketAt(`${way}-ws`))})}catch{}` +
    `try{fetch(${JSON.stringify(at(`${way}-named`, named))},{mode:'no-cors'}).catch(()=>{})}catch{}`;
  const served = (way: string) => `/script.js?${encodeURIComponent(asking(way))}`;
  const dataOf = (script: string) => `data:text/javascript,${encodeURIComponent(script)}`;
  const put = <K extends keyof HTMLElementTagNameMap>(name: K, set: (element: HTMLElementTagNameMap[K]) => void) => {
    const element = document.createElement(name);
    set(element);
    document.body.append(element);
    return element;
  };
  const html = (script: string) => `<!doctype html><script>${script}</scr${'ipt'}>`;

  for (const [suffix, where] of [
    ['', base],
    ['-named', named],
  ] as const) {
    attempt(() => fetch(at(`fetch${suffix}`, where), { mode: 'no-cors' }));
    attempt(() => new WebSocket(socketAt(`websocket${suffix}`, where)));
    attempt(() => put('img', element => (element.src = at(`image${suffix}`, where))));
    attempt(() => put('iframe', element => (element.src = at(`frame${suffix}`, where))));
  }
  attempt(() => new Worker(served('worker')));
  attempt(() => {
    put('iframe', element => {
      element.setAttribute('sandbox', 'allow-scripts');
      element.srcdoc = html(asking('sandboxed'));
    });
  });
  if (few) return;

  for (const [suffix, where] of [
    ['', base],
    ['-named', named],
  ] as const) {
    attempt(() => fetch(at(`fetch-cors${suffix}`, where)));
    attempt(() => put('script', element => (element.src = at(`script${suffix}`, where))));
  }
  for (const [i, where] of spelled.entries()) {
    attempt(() => fetch(at(`spelt-${i}-fetch`, where), { mode: 'no-cors' }));
    attempt(() => put('img', element => (element.src = at(`spelt-${i}-image`, where))));
    attempt(() => new WebSocket(socketAt(`spelt-${i}-websocket`, where)));
  }
  attempt(() => {
    const request = new XMLHttpRequest();
    request.open('GET', at('xhr'));
    request.send();
  });
  attempt(() => navigator.sendBeacon(at('beacon'), 'x'));
  attempt(() => new EventSource(at('events')));
  attempt(() => put('link', element => Object.assign(element, { rel: 'stylesheet', href: at('style') })));
  attempt(() => put('link', element => Object.assign(element, { rel: 'preload', as: 'image', href: at('preload') })));
  attempt(() => put('video', element => (element.src = at('video'))));
  attempt(() => put('object', element => (element.data = at('object'))));
  attempt(() => {
    put('iframe', element => (element.name = `form-${tag}`));
    const form = put('form', element => {
      Object.assign(element, { method: 'post', action: at('form'), target: `form-${tag}` });
    });
    form.submit();
  });
  // By a detour over the page's own host.
  attempt(() => fetch(`/redirect?${encodeURIComponent(at('redirect'))}`, { mode: 'no-cors' }));
  attempt(() => put('img', element => (element.src = `/redirect?${encodeURIComponent(at('redirect-image'))}`)));
  attempt(() => put('iframe', element => (element.src = `/redirect?${encodeURIComponent(at('redirect-frame'))}`)));
  // Frames without a response of their own.
  attempt(() => put('iframe', element => (element.srcdoc = html(asking('srcdoc')))));
  attempt(() =>
    put('iframe', element => (element.src = `data:text/html,${encodeURIComponent(html(asking('data-frame')))}`)),
  );
  attempt(() => {
    const blob = new Blob([html(asking('blob-frame'))], { type: 'text/html' });
    put('iframe', element => (element.src = URL.createObjectURL(blob)));
  });
  attempt(() => {
    const inner = put('iframe', () => {}).contentWindow!;
    inner.document.write(html(asking('blank-frame')));
  });
  // Workers.
  attempt(() => new Worker(served('module-worker'), { type: 'module' }));
  attempt(() => new Worker(URL.createObjectURL(new Blob([asking('blob-worker')], { type: 'text/javascript' }))));
  attempt(() => new Worker(dataOf(asking('data-worker'))));
  attempt(() => new SharedWorker(served('shared-worker')));
  attempt(() => new SharedWorker(dataOf(asking('data-shared-worker'))));
  attempt(() => navigator.serviceWorker?.register(served('service-worker')));
  attempt(() => {
    // A worker within a sandboxed frame.
    const inside = `new Worker(${JSON.stringify(dataOf(asking('sandboxed-worker')))})`;
    put('iframe', element => {
      element.setAttribute('sandbox', 'allow-scripts');
      element.srcdoc = html(inside);
    });
  });
}
