// What a blocked http request gets: a document a page that says who blocked it and how to let it through, anything else an empty answer of its type.
import { hash } from 'node:crypto';
import type { Because } from '../../shared/decision/rule.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, RequestHead } from '../message/message.ts';
import { ownAnswer } from '../message/own-answer.ts';

/** The smallest transparent GIF: an empty picture shows no broken-image mark. */
const EMPTY_GIF = Buffer.from('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7', 'base64');
const NOTHING = Buffer.alloc(0);
const EMPTY = new Map<string, readonly [type: string, body: Buffer]>(
  Object.entries({
    image: ['image/gif', EMPTY_GIF],
    script: ['text/javascript', NOTHING],
    worker: ['text/javascript', NOTHING],
    sharedworker: ['text/javascript', NOTHING],
    serviceworker: ['text/javascript', NOTHING],
    style: ['text/css', NOTHING],
    json: ['application/json', NOTHING],
    font: ['font/woff2', NOTHING],
    audio: ['audio/mpeg', NOTHING],
    video: ['video/mp4', NOTHING],
  }),
);

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.55 system-ui, sans-serif; }
body { max-width: 40rem; margin: 12vh auto; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
pre { padding: .8rem 1rem; border-radius: .5rem; background: color-mix(in srgb, currentColor 8%, transparent); overflow-x: auto; }
small { opacity: .7; }
`;
/** Of the style above, for the page's policy; made when the first page is. */
let styleHash: string | undefined;

/** Status 403 with the page or the empty answer (BlockAnswer of rooms.ts). The walk adds Proxy-Status. */
export function blockAnswer(request: RequestHead, host: string, blockedBy: Because): Answer {
  const destination = destinationOf(request);
  if (destination !== 'document') {
    const [type, body] = EMPTY.get(destination) ?? ['text/plain', NOTHING];
    return answer(type, body);
  }
  styleHash ??= hash('sha256', STYLE, 'base64');
  // A frame may show it: it has nothing to click on, and a person should see who blocked.
  const policy = `default-src 'none'; style-src 'sha256-${styleHash}'; frame-ancestors *; base-uri 'none'; form-action 'none'`;
  return answer('text/html; charset=utf-8', Buffer.from(blockPage(host, blockedBy)), policy);
}

function answer(type: string, body: Buffer, policy?: string): Answer {
  const fields = Fields.of('Content-Type', type, 'Cache-Control', 'no-store', 'X-Content-Type-Options', 'nosniff');
  if (policy !== undefined) fields.append('Content-Security-Policy', policy);
  return ownAnswer(403, 'Forbidden', fields, body);
}

/** What the browser will do with the answer. Over plain http it does not send Sec-Fetch-Dest, so Accept has to tell. */
function destinationOf({ fields }: RequestHead): string {
  const said = fields.get('sec-fetch-dest');
  if (said !== undefined) return said === 'iframe' || said === 'frame' ? 'document' : said;
  const accept = fields.get('accept') ?? '';
  if (accept.includes('text/html')) return 'document';
  if (accept.startsWith('image/')) return 'image';
  if (accept.startsWith('text/css')) return 'style';
  return 'empty';
}

const escape = (text: string) => text.replace(/[&<>"']/g, found => `&#${found.charCodeAt(0)};`);

function blockPage(host: string, by: Because): string {
  // Single labels ("no") and IPv6 are something else to YAML when they stand bare.
  const written = /^[\w-]+(\.[\w-]+)+$/.test(host) ? host : JSON.stringify(host);
  const rule =
    by.list === undefined
      ? `The rule <code>${escape(by.rule)}</code>${by.text === undefined ? '' : ` (<code>${escape(by.text)}</code>)`} blocks it.`
      : `Line ${by.line} of the list <code>${escape(by.list)}</code>${by.text === undefined ? '' : ` (<code>${escape(by.text)}</code>)`} blocks it; the list is <code>${escape(by.rule)}</code> in your file.`;
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Blocked: ${escape(host)}</title>
<style>${STYLE}</style>
<h1>Detour blocked ${escape(host)}</h1>
<p>${rule}</p>
<p>To let it through, add this line under <code>rules:</code> in your Detour file, above other rules for this host:</p>
<pre>  - { host: ${escape(written)}, ${by.rule === 'default' ? 'route: companion' : 'allow: true'}, rank: 1 }</pre>
<p><small>This page was made on your own machine. Nothing was sent to ${escape(host)}.</small></p>
</html>
`;
}
