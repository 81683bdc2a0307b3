// What the cache reads of a request, in one pass over its fields.
import type { RequestHead } from '../message/message.ts';
import type { RangeRequest } from './range-answer.ts';
import { type CacheControl, NO_DIRECTIVES, parseCacheControl } from './cache-control.ts';

export interface Asked extends RangeRequest {
  control: CacheControl;
  hasAuthorization: boolean;
  /** A condition that only the origin may judge, or what makes an answer of its own. */
  originOnly: boolean;
  /** Of a GET; to other methods Range says nothing (RFC 9110 §14.2). */
  range: string | undefined;
  ifRange: string | undefined;
  ifNoneMatch: string | undefined;
  ifModifiedSince: string | undefined;
}

/** Fields by which some origins answer for another URL or method than the one that is asked for (A69): such an answer must be nobody else's. */
const OVERRIDES: ReadonlySet<string> = new Set([
  'x-original-url',
  'x-original-host',
  'x-rewrite-url',
  'x-host',
  'x-http-host-override',
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'x-forwarded-host',
  'x-forwarded-scheme',
  'x-forwarded-proto',
  'x-forwarded-prefix',
  'x-forwarded-port',
  'x-forwarded-server',
]);

const NO_CACHE: CacheControl = { ...NO_DIRECTIVES, noCache: true };

/** What the cache has to know of a request; the same for every one with this head. */
export function readRequest(head: RequestHead): Asked {
  const asked: Asked = {
    control: NO_DIRECTIVES,
    hasAuthorization: false,
    originOnly: false,
    range: undefined,
    ifRange: undefined,
    ifNoneMatch: undefined,
    ifModifiedSince: undefined,
  };
  let pragma = false;
  let controlled = false;
  const { fields } = head;
  const { flat } = fields;
  for (let i = 1; i < flat.length; i += 3) {
    switch (flat[i]) {
      case 'cache-control':
        controlled = true;
        break;
      case 'pragma':
        pragma = true;
        break;
      case 'authorization':
        asked.hasAuthorization = true;
        break;
      case 'range':
        if (head.method === 'GET') asked.range = fields.get('range');
        break;
      case 'if-range':
        asked.ifRange = fields.get('if-range');
        break;
      // Conditions that only an origin may judge (RFC 9111 §4.3.2).
      case 'if-match':
      case 'if-unmodified-since':
        asked.originOnly = true;
        break;
      case 'if-none-match':
        asked.ifNoneMatch = fields.get('if-none-match');
        break;
      case 'if-modified-since':
        asked.ifModifiedSince = fields.get('if-modified-since');
        break;
      default:
        if (flat[i]!.startsWith('x-') && OVERRIDES.has(flat[i]!)) asked.originOnly = true;
    }
  }
  if (controlled) {
    const control = parseCacheControl(fields.get('cache-control')!);
    asked.control = control.noCacheFields.length > 0 ? { ...control, noCache: true } : control;
  }
  // RFC 9111 §5.4: only where there is no Cache-Control.
  else if (pragma && /(?:^|,)\s*no-cache\s*(?:,|$)/i.test(fields.get('pragma')!)) asked.control = NO_CACHE;
  return asked;
}
