// Keywords and expressions as the browser's two dialects carry them: in the order of their ranks, each with what it does, so that the best of each sort is
// the first that is found. What a rule by host says beside them is in the verdicts (compile-verdicts.ts).
import {
  ALLOWED,
  BLOCKED,
  type CompiledMatcher,
  DIRECT,
  OPEN,
  type OrderedPattern,
  patternsOf,
  STEERED,
  type Verdict,
} from './decide.ts';
import { compileNameRegex, isFoundIn, type NameRegex, urlRegexOf } from './name-regex.ts';

/**
 * What a pattern does: r route, l the same with `local`, s and t these with `filter: off`, o off, b block by a list, h block by hand, a allow; R and B: route
 * or block on a condition that only the companion sees.
 */
export type PatternDoes = 'r' | 'l' | 's' | 't' | 'o' | 'b' | 'h' | 'a' | 'R' | 'B';

/** JSON data; the PAC and the table both carry it. */
export interface Patterns {
  /** One character a pattern. */
  readonly does: string;
  /** The first two characters → what follows them, and which pattern it is. */
  readonly keywords: Readonly<Record<string, readonly (readonly [rest: string, pattern: number])[]>>;
  readonly regexes: readonly (readonly [regex: NameRegex, pattern: number])[];
  /** 1: some ranks are given by hand across the classes, so what a pattern steers is sent whatever a rule by host says. */
  readonly mixed: 0 | 1;
  /**
   * What browsers' own rules (RE2, over the URL) need to know of those whose pages are confined; null where that has no short form.
   */
  readonly confined: readonly string[] | null;
}

/** More of them have no place among a browser's own rules. */
export const MAX_CONFINED = 500;

/** Null where there are none. */
export function compilePatterns(matcher: CompiledMatcher): Patterns | null {
  const { patterns, mixed } = patternsOf(matcher);
  if (patterns.length === 0) return null;
  const keywords: Record<string, [string, number][]> = {};
  const regexes: [NameRegex, number][] = [];
  const confined: (string | null)[] = [];
  let does = '';
  for (const { pattern, ...rest } of patterns) {
    const what = doesOf(rest);
    if (what === null) continue;
    const number = does.length;
    does += what;
    const confines = 'rsbhRB'.includes(what);
    if (pattern.kind === 'keyword') {
      const { text } = pattern;
      (keywords[text.slice(0, 2)] ??= []).push([text.slice(2), number]);
      if (confines) confined.push(urlRegexOf(text.replaceAll('.', '\\.')));
    } else {
      const regex = compileNameRegex(pattern.source);
      if (typeof regex === 'string') continue;
      regexes.push([regex, number]);
      if (confines) confined.push(urlRegexOf(pattern.source));
    }
  }
  const isShort = confined.length <= MAX_CONFINED && !confined.includes(null);
  return { does, keywords, regexes, mixed: mixed ? 1 : 0, confined: isShort ? (confined as string[]) : null };
}

function doesOf({ action, byHand, conditional }: Omit<OrderedPattern, 'pattern'>): PatternDoes | null {
  switch (action.do) {
    case 'route': {
      if (conditional) return 'R';
      const isSparing = action.filter === 'off';
      return action.local ? (isSparing ? 't' : 'l') : isSparing ? 's' : 'r';
    }
    case 'block':
      return conditional ? 'B' : byHand ? 'h' : 'b';
    // On a condition it may only steer less: a dialect takes it for not there.
    case 'off':
      return conditional ? null : 'o';
    case 'allow':
      return conditional ? null : 'a';
  }
}

const NEVER = Infinity;

/** The verdict of a name, where `named` is what the rules by host say. */
export function verdictWith(patterns: Patterns, name: string, named: Verdict): Verdict {
  const { does, mixed } = patterns;
  if (named === STEERED || named === BLOCKED || named === OPEN) return named;
  const isLast = named !== DIRECT && named !== ALLOWED;
  if (isLast && mixed === 0) return DIRECT;
  // The first of each: steers, blocks, blocks by hand, allows, may send.
  let s = NEVER;
  let b = NEVER;
  let h = NEVER;
  let a = NEVER;
  let m = NEVER;
  let sends = false;
  const found = (i: number) => {
    const what = does[i]!;
    if ('rlsto'.includes(what)) s = Math.min(s, i);
    else if (what === 'a') a = Math.min(a, i);
    else if (what === 'R' || what === 'B') m = Math.min(m, i);
    else {
      b = Math.min(b, i);
      if (what === 'h') h = Math.min(h, i);
    }
    if (what !== 'o' && what !== 'a') sends = true;
  };
  for (let at = 0; at < name.length - 1; at++) {
    const key = name.slice(at, at + 2);
    if (!Object.hasOwn(patterns.keywords, key)) continue;
    for (const [rest, pattern] of patterns.keywords[key]!) if (name.startsWith(rest, at + 2)) found(pattern);
  }
  for (const [regex, pattern] of patterns.regexes) if (isFoundIn(regex, name)) found(pattern);
  if (mixed === 1 && (isLast || named === ALLOWED)) return sends ? STEERED : DIRECT;
  const steers = s === NEVER ? 'o' : does[s]!;
  if (steers === 's' || steers === 't') b = h;
  if (named === ALLOWED) b = NEVER;
  if (b < s && b < a) return BLOCKED;
  if (steers !== 'o') return steers === 'l' || steers === 't' ? OPEN : STEERED;
  return m < s ? STEERED : DIRECT;
}

/** The same in the PAC's words: X(h, v), with the patterns in P. */
export const PATTERNS_IN_PAC = `
function G(g,h){
  var s=0,i,k,e;
  for(i=0;i<h.length;i++){
    e=g.ends.charAt(s);
    if(e>="2")return e==="2";
    k=Q.indexOf(h.charAt(i));
    s=g.next[s*g.width+g.classes.charCodeAt(k<0?Q.length:k)-48];
  }
  e=g.ends.charAt(s);
  return e==="1"||e==="2";
}
function X(h,v){
  var N=1e9,s=N,b=N,d=N,a=N,m=N,z=0,c,i,j,k,w;
  function f(i){
    c=P.does.charAt(i);
    if("rlsto".indexOf(c)>=0)s=Math.min(s,i);
    else if(c==="a")a=Math.min(a,i);
    else if(c==="R"||c==="B")m=Math.min(m,i);
    else{
      b=Math.min(b,i);
      if(c==="h")d=Math.min(d,i);
    }
    if(c!=="o"&&c!=="a")z=1;
  }
  if(v>0&&v<4)return v;
  if(v===5&&!P.mixed)return 0;
  for(i=0;i<h.length-1;i++){
    k=h.slice(i,i+2);
    if(!O.call(P.keywords,k))continue;
    w=P.keywords[k];
    for(j=0;j<w.length;j++)if(h.slice(i+2,i+2+w[j][0].length)===w[j][0])f(w[j][1]);
  }
  for(i=0;i<P.regexes.length;i++)if(G(P.regexes[i][0],h))f(P.regexes[i][1]);
  if(P.mixed&&v>=4)return z;
  w=s===N?"o":P.does.charAt(s);
  if(w==="s"||w==="t")b=d;
  if(v===4)b=N;
  if(b<s&&b<a)return 1;
  if(w!=="o")return 1;
  return m<s?1:0;
}
`;
