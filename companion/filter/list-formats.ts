// The formats of rule lists that others write, line by line: AutoProxy (gfwlist), SwitchyOmega, Clash rule providers and v2fly's text. What of them has a
// meaning by host, port or path here becomes entries; what has none is said, line by line.
import type { ListFormat } from '../../shared/config/rules.ts';
import { compileNameRegex } from '../../shared/decision/name-regex.ts';
import { isAddress, normalizeHost } from '../../shared/endpoint.ts';
import { EXACT, SUFFIX } from '../../shared/decision/rule-table.ts';
import type { Condition } from '../../shared/decision/rule.ts';
import {
  type AddEntry,
  addHost,
  addMatcher,
  hostsLines,
  type LineReader,
  shorten,
  withoutComment,
} from './list-parser.ts';

/** A reader for one reading of one file: some formats remember what stood above a line. */
export function readerOf(format: ListFormat): LineReader {
  switch (format) {
    case 'hosts':
      return hostsLines;
    case 'autoproxy':
      return autoproxyLines;
    case 'switchy':
      return switchyLines();
    case 'clash':
      return clashLines();
    case 'v2fly':
      return v2flyLines;
  }
}

/** The list's own bytes: AutoProxy lists mostly come in base64. */
export function unwrapped(format: ListFormat, bytes: Uint8Array): Uint8Array {
  if (format !== 'autoproxy') return bytes;
  const beginning = Buffer.from(bytes.subarray(0, 2_048)).toString('latin1');
  if (!/^[A-Za-z0-9+/\s]+=*\s*$/.test(beginning)) return bytes;
  // "[AutoProxy" is what such a list begins with.
  if (!/^\s*\[autoproxy/i.test(Buffer.from(beginning, 'base64').toString('latin1'))) return bytes;
  return Buffer.from(Buffer.from(bytes).toString('latin1'), 'base64');
}

// AutoProxy --------------------------------------------------------------------------------------------------------------------------

/** https://github.com/gfwlist/gfwlist/wiki/Syntax: `||host`, `|http://host/path`, `host/path`, words, /expressions/; `@@` before any makes an exception. */
const autoproxyLines: LineReader = {
  plain: null,
  wrappings: [['||', '', SUFFIX]],
  read(line, add) {
    if (line[0] === '!' || /^\[autoproxy/i.test(line)) return null;
    const allow = line.startsWith('@@');
    const text = allow ? line.slice(2) : line;
    if (text.length > 1 && text.startsWith('/') && text.endsWith('/'))
      return addUrlRegex(text.slice(1, -1), add, allow);
    if (text.startsWith('||')) return addUrlPart(text.slice(2), 'suffix', add, allow, line);
    if (text.startsWith('|')) {
      const url = /^\|https?:\/\/(.*)$/i.exec(text);
      if (!url) return `"${shorten(line)}" is no URL of http or https`;
      return addUrlPart(url[1]!, 'exact', add, allow, line);
    }
    return addUrlPart(text.replace(/^https?:\/\//i, ''), 'suffix', add, allow, line);
  },
};

/** `host`, `.host`, `*.host`, `host:port`, `host/path*`, or a word. */
function addUrlPart(
  text: string,
  kind: 'exact' | 'suffix',
  add: AddEntry,
  allow: boolean,
  line: string,
): string | null {
  const match = /^([^/:^]*)(?::(\d{1,5}))?([/^].*)?$/.exec(text.replace(/\|$/, ''));
  const written = (match?.[1] ?? '').replace(/^\*?\.|^\*/, '');
  const path = (match?.[3] ?? '').replace(/^\^$/, '').replace(/\*+$/, '');
  if (!match || written === '') return `"${shorten(line)}" names no host`;
  if (path.includes('*') || path.includes('^')) return `"${shorten(line)}" has a wildcard within its path`;
  const when: Condition = {
    ...(match[2] === undefined ? {} : { ports: [{ from: Number(match[2]), to: Number(match[2]) }] }),
    ...(path === '' || path === '/' ? {} : { path, wholeHost: !allow }),
  };
  const isConditional = when.ports !== undefined || when.path !== undefined;
  const put = (matcher: Parameters<typeof addMatcher>[0]) =>
    add({ matcher, ...(allow ? { allow } : {}), ...(isConditional ? { when } : {}) });
  if (written.includes('*')) return addWildcard(match[1]!, put, line);
  const host = normalizeHost(written);
  if (host === null) return `"${shorten(line)}" names no host`;
  const isWord = kind === 'suffix' && !host.includes('.') && !text.startsWith('.') && !line.includes('||');
  if (isAddress(host)) put({ kind: 'exact', host });
  else if (isWord && host.length >= 2) put({ kind: 'keyword', text: host });
  else put({ kind: match[1]!.startsWith('*') || match[1]!.startsWith('.') ? 'suffix' : kind, host });
  return null;
}

/** `*.x*.example.com`: the stars stand for anything. */
function addWildcard(
  text: string,
  put: (matcher: { kind: 'regex'; source: string }) => void,
  line: string,
): string | null {
  const source = `^${text
    .toLowerCase()
    .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')}$`;
  const compiled = compileNameRegex(source);
  if (typeof compiled === 'string') return `"${shorten(line)}" names no host`;
  put({ kind: 'regex', source });
  return null;
}

/** An expression over URLs, where its beginning is of the scheme, its end of the path, and all between of the host. */
function addUrlRegex(source: string, add: AddEntry, allow: boolean): string | null {
  const match = /^\^https?\??:\\?\/\\?\/(.*)$/s.exec(source);
  // The end of the host, and whatever stands behind it.
  const host = match?.[1]?.replace(/(?:\\?\/|\((?:\?:)?\\?\/\|\$\))(?:\.\*)?\$?$/, '$');
  const over = `"${shorten(source)}" is an expression over more than the host`;
  if (host === undefined) return over;
  const ofHost = `^(?:${host})`;
  if (typeof compileNameRegex(ofHost) === 'string') return over;
  addMatcher({ kind: 'regex', source: ofHost }, add, allow);
  return null;
}

// SwitchyOmega -----------------------------------------------------------------------------------------------------------------------

/** https://github.com/FelisCatus/SwitchyOmega/wiki/SwitchyOmega-conditions-format: conditions that are by host; `!` before one makes an exception. */
function switchyLines(): LineReader {
  let withResult = false;
  let isOld = false;
  return {
    plain: null,
    wrappings: [],
    read(line, add) {
      if (line[0] === ';' || line[0] === '#') {
        if (!line.startsWith('#BEGIN')) return null;
        isOld = true;
        return 'is of the old SwitchySharp format, which is not read';
      }
      if (/^\[SwitchyOmega/i.test(line)) return null;
      if (line[0] === '@') {
        if (/^@with\s+results?$/i.test(line)) withResult = true;
        else if (!/^@(?:note|url)\b/i.test(line)) return `"${shorten(line)}" is not read`;
        return null;
      }
      if (isOld) return `"${shorten(line)}" is of the old SwitchySharp format, which is not read`;
      let text = line;
      let allow = false;
      if (withResult) {
        const result = /^(.*?)\s+\+(\S.*)$/.exec(text);
        if (result) {
          text = result[1]!;
          allow = result[2]!.trim().toLowerCase() === 'direct';
        }
      }
      if (text[0] === '!') {
        text = text.slice(1);
        allow = true;
      }
      // The last line of most lists: everything else.
      if (text === '*' && withResult) return null;
      return addSwitchy(text.trim(), add, allow, line);
    },
  };
}

function addSwitchy(text: string, add: AddEntry, allow: boolean, line: string): string | null {
  const put = (matcher: Parameters<typeof addMatcher>[0]) => addMatcher(matcher, add, allow);
  const typed = /^([A-Za-z]+):\s*(.+)$/.exec(text);
  const type = typed ? typed[1]!.toLowerCase() : 'h';
  const pattern = typed ? typed[2]! : text.replace(/^:\s*/, '');
  switch (type) {
    case 'h':
    case 'w':
    case 'hw':
    case 'wildcard':
    case 'hostwildcard':
    case 'hostwildcardcondition':
      return addHostWildcards(pattern, put, line);
    case 'hr':
    case 'hostregex':
    case 'hostregexcondition': {
      const compiled = compileNameRegex(pattern);
      if (typeof compiled === 'string') return compiled;
      put({ kind: 'regex', source: pattern });
      return null;
    }
    case 'k':
    case 'kw':
    case 'keyword':
    case 'keywordcondition':
      return addKeyword(pattern, add, allow);
    case 'ip':
    case 'ipcondition':
      return addHost(pattern, add, allow);
    case 'u':
    case 'uw':
    case 'url':
    case 'urlwildcard':
    case 'urlwildcardcondition': {
      const url = /^(?:\*|https?\*?):\/\/([^/]+)\/\*?$/i.exec(pattern);
      return url ? addHostWildcards(url[1]!, put, line) : `"${shorten(line)}" is a condition over more than the host`;
    }
    case 'r':
    case 'ur':
    case 'urlregex':
    case 'urlregexcondition':
      return addUrlRegex(pattern, add, allow);
    default:
      return `"${shorten(line)}" is a condition that is not by host`;
  }
}

/** `*.example.com` takes example.com along, `**.example.com` does not; several with `|` between. */
function addHostWildcards(
  pattern: string,
  put: (matcher: Parameters<typeof addMatcher>[0]) => void,
  line: string,
): string | null {
  for (const one of pattern.split('|')) {
    const text = one.trim();
    const domain = /^(\*\*?)\.([^*?]+)$/.exec(text);
    const host = normalizeHost(domain ? domain[2]! : text);
    if (domain && host !== null) put({ kind: domain[1] === '*' ? 'suffix' : 'subdomains', host });
    else if (!/[*?]/.test(text)) {
      if (host === null) return `"${shorten(line)}" names no host`;
      put({ kind: 'exact', host });
    } else {
      const word = /^\*([a-z0-9_.-]{2,100})\*$/i.exec(text);
      if (word) put({ kind: 'keyword', text: word[1]!.toLowerCase() });
      else {
        const message = addWildcard(text.replaceAll('?', '*').replaceAll('**', '*'), put, line);
        if (message !== null) return message;
      }
    }
  }
  return null;
}

function addKeyword(pattern: string, add: AddEntry, allow: boolean): string | null {
  const text = pattern.toLowerCase();
  if (!/^[a-z0-9_.-]{2,100}$/.test(text)) return `"${shorten(pattern)}" is not a part of a host name`;
  addMatcher({ kind: 'keyword', text }, add, allow);
  return null;
}

// Clash ------------------------------------------------------------------------------------------------------------------------------

/** Rule providers of the behaviours domain, ipcidr and classical, as YAML (`payload:`) or as text; which it is, each line tells. */
function clashLines(): LineReader {
  return {
    plain: EXACT,
    wrappings: [
      ["- '+.", "'", SUFFIX],
      ['- "+.', '"', SUFFIX],
      ["- '", "'", EXACT],
      ['- DOMAIN-SUFFIX,', '', SUFFIX],
      ['- DOMAIN,', '', EXACT],
      ['DOMAIN-SUFFIX,', '', SUFFIX],
      ['DOMAIN,', '', EXACT],
      ['+.', '', SUFFIX],
    ],
    read(written, add) {
      let line = withoutComment(written);
      if (line === '' || /^payload\s*:\s*(?:\[\s*\])?$/.test(line) || line === '---') return null;
      const item = /^-\s+(.*)$/.exec(line);
      if (item) line = item[1]!;
      const quoted = /^(['"])(.*)\1$/.exec(line);
      if (quoted) line = quoted[2]!;
      if (line.includes(',')) return addClassical(line, add);
      if (line.startsWith('+.')) return addHost(line.slice(2), add);
      if (line.startsWith('*.')) return addHost(line.slice(1), add);
      if (line.startsWith('.') || line.includes('/')) return addHost(line, add);
      const host = normalizeHost(line);
      if (host === null) return `"${shorten(line)}" is neither a host nor a rule`;
      addMatcher({ kind: 'exact', host }, add);
      return null;
    },
  };
}

function addClassical(line: string, add: AddEntry): string | null {
  const [type = '', value = ''] = line.split(',').map(part => part.trim());
  switch (type.toUpperCase()) {
    case 'DOMAIN':
      return addHost(`=${value}`, add);
    case 'DOMAIN-SUFFIX':
      return addHost(value.replace(/^\./, ''), add);
    case 'DOMAIN-KEYWORD':
      return addKeyword(value, add, false);
    case 'DOMAIN-REGEX': {
      // A comma may be part of it.
      const source = line.slice(line.indexOf(',') + 1).trim();
      const compiled = compileNameRegex(source);
      if (typeof compiled === 'string') return compiled;
      addMatcher({ kind: 'regex', source }, add);
      return null;
    }
    case 'IP-CIDR':
    case 'IP-CIDR6':
      return addHost(value, add);
    default:
      return `"${shorten(line)}" is a rule that is not by host or address`;
  }
}

// v2fly ------------------------------------------------------------------------------------------------------------------------------

/** https://github.com/v2fly/domain-list-community: `domain:`, `full:`, `keyword:`, `regexp:`; attributes (`@ads`, `&group`) are passed over. */
const v2flyLines: LineReader = {
  plain: SUFFIX,
  wrappings: [
    ['domain:', '', SUFFIX],
    ['full:', '', EXACT],
  ],
  read(written, add) {
    const line = withoutComment(written);
    if (line === '') return null;
    const [first = ''] = line.split(/\s+/);
    const colon = first.indexOf(':');
    const type = colon < 0 ? 'domain' : first.slice(0, colon);
    const value = first.slice(colon + 1).replace(/:@[^:]*$/, '');
    switch (type) {
      case 'domain':
        return addHost(value, add);
      case 'full':
        return addHost(`=${value}`, add);
      case 'keyword':
        return addKeyword(value, add, false);
      case 'regexp': {
        const compiled = compileNameRegex(value);
        if (typeof compiled === 'string') return compiled;
        addMatcher({ kind: 'regex', source: value }, add);
        return null;
      }
      case 'include':
        return `"${shorten(line)}" names another list, which is not fetched: subscribe to it, too`;
      default:
        return `"${shorten(line)}" is not domain:, full:, keyword: or regexp:`;
    }
  },
};
