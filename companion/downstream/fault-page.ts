// What a failed exchange looks like to the browser: a small page for a document, a line of text for anything else, and Proxy-Status for programs.
import { hash } from 'node:crypto';
import type { Fault } from '../../shared/fault.ts';
import { Fields } from '../message/headers.ts';
import type { Answer, RequestHead } from '../message/message.ts';
import { ownAnswer } from '../message/own-answer.ts';
import { stringItem } from '../message/structured-fields.ts';

// An import of node:http by name loads all that it exports, fetch and WebSocket too: 30 ms of every start (seen in Node 24).

const STYLE = `
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto 0; padding: 0 1.5rem; color: #1d2430; background: #fff }
  h1 { font-size: 1.4rem; font-weight: 600; line-height: 1.3 }
  p.small { color: #5c6675; font-size: .875rem }
  @media (prefers-color-scheme: dark) { body { color: #e8ebf0; background: #15181d } p.small { color: #98a2b3 } }
`;
/** Of the style above, for the page's policy; made when the first page is. */
let styleHash: string | undefined;

/** The answer for a fault and our Proxy-Status member; null where nobody is left to read it. */
export function faultAnswer(fault: Fault, request: RequestHead): { answer: Answer; proxyStatus: string } | null {
  const { status } = fault.row;
  if (status === null) return null;
  const page = wantsDocument(request);
  const body = Buffer.from(page ? faultPage(fault, status) : `${fault.message}\n`);
  const fields = Fields.of(
    'Content-Type',
    page ? 'text/html; charset=utf-8' : 'text/plain; charset=utf-8',
    'Cache-Control',
    'no-store',
    'X-Content-Type-Options',
    'nosniff',
  );
  // RFC 9110 §15.5.8, RFC 7617 §2.1.
  if (fault.kind === 'proxy_authentication_required')
    fields.append('Proxy-Authenticate', 'Basic realm="Detour", charset="UTF-8"');
  if (page)
    fields.append(
      'Content-Security-Policy',
      `default-src 'none'; style-src 'sha256-${(styleHash ??= hash('sha256', STYLE, 'base64'))}'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'`,
    );
  const reason = process.getBuiltinModule('node:http').STATUS_CODES[status] ?? '';
  return { answer: ownAnswer(status, reason, fields, body), proxyStatus: proxyStatusOf(fault) };
}

/** Our member of Proxy-Status (RFC 9209 §2): the error's type, which hop by its name in the file, what it said, the sentence. */
export function proxyStatusOf(fault: Fault): string {
  let member = `detour; error=${fault.proxyStatusError}`;
  if (fault.hop !== undefined) member += `; next-hop=${stringItem(fault.hop)}`;
  if (fault.receivedStatus !== undefined) member += `; received-status=${fault.receivedStatus}`;
  return `${member}; details=${stringItem(fault.message)}`;
}

/** Whether what comes back is shown to a person. */
export function wantsDocument(request: RequestHead): boolean {
  const dest = request.fields.get('sec-fetch-dest');
  if (dest !== undefined) return dest === 'document' || dest === 'iframe' || dest === 'frame';
  return request.fields.get('accept')?.includes('text/html') ?? false;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`);
}

function faultPage(fault: Fault, status: number): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>${status} · Detour</title>
<style>${STYLE}</style>
<h1>${escaped(fault.message)}</h1>
<p class="small">Detour · ${status} · ${escaped(fault.proxyStatusError)}</p>
</html>
`;
}
