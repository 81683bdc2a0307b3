// The matcher as PAC text: ASCII, deterministic, exactly one proxy and never DIRECT for what is steered. It sees no path of https and resolves
// nothing; a host that it cannot read for certain goes to the companion. Written in ES5 for the PAC engines of both browsers.
import { type Endpoint, formatEndpoint } from '../endpoint.ts';
import { compileVerdicts } from './compile-verdicts.ts';
import { type CompiledMatcher, VERDICTS } from './decide.ts';
import { NAME_ALPHABET } from './name-regex.ts';
import { PATTERNS_IN_PAC } from './patterns.ts';

// H: a name's code, or -1 · V, W: an IPv4 or IPv6 address as 8 or 32 hex digits (8 where IPv6 maps IPv4), "" where it is none, read as the
// WHATWG URL standard reads it · Z: the verdict of such digits · Y: back to the normal form that single addresses stand in · B: a name's verdict by the
// rules by host · F: any host's verdict.
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
function V(h){
  var p=h.split("."),n=0,i,s,x;
  if(p.length>4)return "";
  for(i=0;i<p.length;i++){
    s=p[i];
    if(/^0x[0-9a-f]*$/.test(s))x=s.length>2?parseInt(s,16):0;
    else if(/^0[0-7]*$/.test(s))x=parseInt(s,8);
    else if(/^[1-9][0-9]*$/.test(s))x=+s;
    else return "";
    if(i<p.length-1){
      if(x>255)return "";
      n+=x*Math.pow(256,3-i);
    }else if(x<Math.pow(256,4-i))n+=x;
    else return "";
  }
  return ("0000000"+n.toString(16)).slice(-8);
}
function W(h){
  var m=/^(.*:)([0-9]+(?:\\.[0-9]+){3})$/.exec(h),s,a,b,o="",i;
  if(m){
    s=V(m[2]);
    h=m[1]+s.slice(0,4)+":"+s.slice(4);
  }
  s=h.split("::");
  a=s[0]===""?[]:s[0].split(":");
  b=s.length<2||s[1]===""?[]:s[1].split(":");
  if(s.length>2||(s.length<2?a.length!==8:a.length+b.length>7))return "";
  while(a.length+b.length<8)a.push("0");
  a=a.concat(b);
  for(i=0;i<8;i++){
    if(!/^[0-9a-f]{1,4}$/.test(a[i]))return "";
    o+=("000"+a[i]).slice(-4);
  }
  return /^0{20}ffff/.test(o)?o.slice(24):o;
}
function Y(x){
  var p=[],i,z,b=0,l=1;
  if(x.length===8)return parseInt(x.slice(0,2),16)+"."+parseInt(x.slice(2,4),16)+"."+parseInt(x.slice(4,6),16)+"."+parseInt(x.slice(6),16);
  for(i=0;i<8;i++)p.push(parseInt(x.slice(i*4,i*4+4),16).toString(16));
  for(i=0;i<8;i=z+1){
    for(z=i;p[z]==="0";)z++;
    if(z-i>l){b=i;l=z-i;}
  }
  return l<2?p.join(":"):p.slice(0,b).join(":")+"::"+p.slice(b+l).join(":");
}
function Z(x){
  var r=x.length===8?R4:R6,w=x.length,a=0,z=r[1].length,m,h;
  if(w===0)return 1;
  if(L){
    h=Y(x);
    if(O.call(A,h))return A[h];
  }
  while(a<z){
    m=(a+z)>>1;
    if(r[0].slice(m*w,m*w+w)<=x)a=m+1;else z=m;
  }
  return a?+r[1].charAt(a-1):0;
}
function B(h){
  var c=H(h),d;
  if(c>=0)return Math.floor(c/${VERDICTS});
  for(d=h.indexOf(".");d>=0;d=h.indexOf(".",d+1)){
    c=H(h.slice(d+1));
    if(c>=0)return c%${VERDICTS};
  }
  return 0;
}
function F(h){
  if(typeof h!=="string")return 1;
  h=h.toLowerCase();
  if(h.charAt(0)==="["&&h.charAt(h.length-1)==="]")h=h.slice(1,-1);
  if(h.indexOf(":")>=0)return Z(W(h));
  if(h.charAt(h.length-1)===".")h=h.slice(0,-1);
  if(!/^[a-z0-9_-]+(\\.[a-z0-9_-]+)*$/.test(h))return 1;
  if(/(^|\\.)([0-9]+|0x[0-9a-f]*)$/.test(h))return Z(V(h));
  return P?X(h,B(h)):B(h);
}
`;

/**
 * PAC text whose FindProxyForURL answers `PROXY host:port` for every steered (or blocked) host and `DIRECT` for all else.
 * `generation` goes into a comment, so that a new one makes a browser read it anew.
 */
export function compilePac(matcher: CompiledMatcher, proxy: Endpoint, generation = ''): string {
  const { names, addresses, ipv4, ipv6, patterns } = compileVerdicts(matcher);
  const isSingle = Object.keys(addresses).length > 0;
  const isEmpty =
    Object.keys(names).length === 0 && !isSingle && ipv4.starts === '' && ipv6.starts === '' && patterns === null;
  const head = `// Detour${generation && ` ${generation}`}: which requests go to the companion.\n`;
  if (isEmpty) return `${head}function FindProxyForURL(){return "DIRECT"}\n`;
  const answer = JSON.stringify(`PROXY ${formatEndpoint(proxy)}`);
  // What only the browser's own rules need stays away.
  const carried = patterns && { ...patterns, confined: undefined };
  const stretches = [ipv4, ipv6].map(({ starts, verdicts }) => JSON.stringify([starts, verdicts]));
  return (
    `${head}var N=${JSON.stringify(names)},A=${JSON.stringify(addresses)},L=${isSingle ? 1 : 0},` +
    `R4=${stretches[0]},R6=${stretches[1]},O=Object.prototype.hasOwnProperty,P=${JSON.stringify(carried)}` +
    `${patterns ? `,Q=${JSON.stringify(NAME_ALPHABET)}` : ''};${patterns ? PATTERNS_IN_PAC : ''}${FIND}` +
    `function FindProxyForURL(u,h){try{return F(h)?${answer}:"DIRECT"}catch(e){return ${answer}}}\n`
  );
}
