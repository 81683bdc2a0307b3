// The matcher as PAC text: ASCII, deterministic, exactly one proxy and never DIRECT for what is steered. It sees no path of https and resolves
// nothing; what it cannot read for certain it sends to the companion. Written in ES5 for the PAC engines of both browsers.
import { type Endpoint, formatEndpoint } from '../endpoint.ts';
import { compileVerdicts } from './compile-verdicts.ts';
import type { CompiledMatcher } from './decide.ts';

const FIND = `
function H(h){
  var d=h.lastIndexOf("."),t=d<0?h:h.slice(d+1),n=d<0?"@":h.slice(0,d),k=t+" "+n.length+n.charAt(0),r=n.slice(1),l=r.length,c,s,i;
  for(c in N){
    if(!O.call(N[c],k))continue;
    if(l===0)return +c;
    s=N[c][k];
    for(i=s.indexOf(r);i>=0;i=s.indexOf(r,i+1))if(i%l===0)return +c;
  }
  return -1;
}
function I(h){
  var p=h.split("."),x=((+p[0])*16777216+(+p[1])*65536+(+p[2])*256+(+p[3])),i;
  if(O.call(A,h))return A[h];
  for(i=0;i<R.length;i++)if(Math.floor(x/R[i][1])===R[i][0])return R[i][2];
  return 0;
}
function F(h){
  var c,d;
  if(typeof h!=="string")return 1;
  h=h.toLowerCase();
  if(h.charAt(0)==="["&&h.charAt(h.length-1)==="]")h=h.slice(1,-1);
  if(h.indexOf(":")>=0)return O.call(A,h)?A[h]:S6;
  if(h.charAt(h.length-1)===".")h=h.slice(0,-1);
  if(!/^[a-z0-9_-]+(\\.[a-z0-9_-]+)*$/.test(h))return 1;
  d=h.slice(h.lastIndexOf(".")+1);
  if(/^([0-9]+|0x[0-9a-f]*)$/.test(d)){
    if(/^(0|[1-9][0-9]{0,2})(\\.(0|[1-9][0-9]{0,2})){3}$/.test(h))return I(h);
    return S4;
  }
  c=H(h);
  if(c>=0)return Math.floor(c/3);
  for(d=h.indexOf(".");d>=0;d=h.indexOf(".",d+1)){
    c=H(h.slice(d+1));
    if(c>=0)return c%3;
  }
  return 0;
}
`;

/**
 * PAC text whose FindProxyForURL answers `PROXY host:port` for every steered (or blocked) host and `DIRECT` for all else.
 * `generation` goes into a comment, so that a new one makes a browser read it anew.
 */
export function compilePac(matcher: CompiledMatcher, proxy: Endpoint, generation = ''): string {
  const { names, addresses, ranges } = compileVerdicts(matcher);
  // Ranges of IPv4 as [bits above the prefix, size, verdict].
  const four = ranges
    .filter(([address]) => !address.includes(':'))
    .map(([address, prefix, verdict]) => {
      const size = 2 ** (32 - prefix);
      const number = address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
      return [Math.floor(number / size), size, verdict];
    });
  const reaches = (six: boolean) =>
    Object.entries(addresses).some(([address, verdict]) => verdict !== 0 && address.includes(':') === six) ||
    ranges.some(([address, , verdict]) => verdict !== 0 && address.includes(':') === six);
  const someFour = reaches(false) ? 1 : 0;
  // IPv6 is not calculated here: with any rule that steers one, all of them (and the spellings that hide an IPv4 address) go to the companion.
  const someSix = reaches(true) || someFour ? 1 : 0;
  const isEmpty = Object.keys(names).length === 0 && someSix === 0;
  const head = `// Detour${generation && ` ${generation}`}: which requests go to the companion.\n`;
  if (isEmpty) return `${head}function FindProxyForURL(){return "DIRECT"}\n`;
  return (
    `${head}var N=${JSON.stringify(names)},A=${JSON.stringify(addresses)},R=${JSON.stringify(four)},` +
    `S4=${someFour},S6=${someSix},O=Object.prototype.hasOwnProperty;${FIND}` +
    `function FindProxyForURL(u,h){try{return F(h)?"PROXY ${formatEndpoint(proxy)}":"DIRECT"}catch(e){return "PROXY ${formatEndpoint(proxy)}"}}\n`
  );
}
