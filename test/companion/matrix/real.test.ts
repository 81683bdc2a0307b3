// The same over other people's proxies: squid, tinyproxy, dante, microsocks and OpenSSH say no in their own words, and the next one carries the request.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TOKEN_PREFIX } from '../../../shared/control.ts';
import type { Exchange } from '../../../shared/exchange.ts';
import type { FaultKind } from '../../../shared/fault.ts';
import { makeTestAuthority } from '../../support/certificates.ts';
import { closedPort } from '../../support/hop.ts';
import { havePeers, type Peer, startDante, startMicrosocks, startSquid, startTinyproxy } from '../../support/peers.ts';
import { haveSshd, type Sshd, startSshd } from '../../support/sshd.ts';
import { cliToken, startTestCompanion, type TestCompanion, TestLink } from '../../support/with-companion.ts';
import type { Method } from './cells.ts';
import { askFor, bodyOf, pageOf } from './world.ts';

const WAYS = ['http', 'connect', 'socks5'] as const;
const NOES = ['by its rules', 'the login is wrong', 'the target is away'] as const;
const HOPS = ['squid', 'tinyproxy', 'dante', 'microsocks', 'ssh'] as const;
type No = (typeof NOES)[number];

/** What the attempt is to say of it, and what it is a sign of. */
const SAYS: Record<No, { outcome: FaultKind; sign: string }> = {
  'by its rules': { outcome: 'hop_refused', sign: 'policy' },
  'the login is wrong': { outcome: 'hop_authentication_failed', sign: 'auth' },
  'the target is away': { outcome: 'hop_could_not_reach', sign: 'unreachable' },
};

interface RealCell {
  readonly number: number;
  readonly hop: (typeof HOPS)[number];
  readonly no: No;
  readonly way: (typeof WAYS)[number];
  readonly method: Method;
  readonly next: 'next works' | 'no other' | 'open';
  readonly host: string;
}

let count = 0;
const cells: RealCell[] = HOPS.flatMap(hop =>
  NOES.flatMap(no =>
    WAYS.flatMap(way =>
      (way === 'http' ? (['GET', 'HEAD', 'PUT', 'POST'] as const) : (['GET', 'POST'] as const)).flatMap(method =>
        // Microsocks has no rules.
        hop === 'microsocks' && no === 'by its rules'
          ? []
          : (['next works', 'no other', 'open'] as const).map((next): RealCell => {
              count++;
              return { number: count, hop, no, way, method, next, host: `real${count}.test` };
            }),
      ),
    ),
  ),
);

describe.runIf(havePeers('squid', 'danted', 'microsocks', 'tinyproxy') && haveSshd())('over real proxies', () => {
  const login = (name: string) => ({ username: `u-${name}`, password: `pw-1-${name}-end` });
  const opened: AsyncDisposable[] = [];
  const seen: { host: string; method: string; fields: string; body: Buffer }[] = [];
  let companion: TestCompanion;
  let link: TestLink;
  let ca = '';
  const ports = { http: 0, https: 0, closed: 0 };

  const serve = (request: IncomingMessage, response: ServerResponse) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece)).on('error', () => {});
    request.on('end', () => {
      const body = Buffer.concat(pieces);
      const host = request.headers.host!.split(':')[0]!;
      seen.push({ host, method: request.method!, fields: request.rawHeaders.join('\n'), body });
      response.setHeader('Cache-Control', 'no-store');
      response.end(pageOf(request.method as Method, body));
    });
  };
  async function listens(server: Server): Promise<number> {
    const sockets = new Set<Socket>();
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket)).on('error', () => {});
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    opened.push({
      async [Symbol.asyncDispose]() {
        for (const socket of sockets) socket.destroy();
        await new Promise(resolve => server.close(resolve));
      },
    });
    return (server.address() as AddressInfo).port;
  }

  beforeAll(async () => {
    const authority = await makeTestAuthority();
    ca = authority.pem;
    ports.http = await listens(createServer(serve));
    ports.https = await listens(createTlsServer(await authority.issue('origin.test'), serve));
    ports.closed = await closedPort();
    const hosts = Object.fromEntries(cells.map(({ host }) => [host, '127.0.0.1']));
    const denied = (hop: RealCell['hop']) =>
      cells.filter(cell => cell.hop === hop && cell.no === 'by its rules').map(cell => cell.host);
    // Dante refuses addresses, under whatever name.
    const forDante = { ...hosts, ...Object.fromEntries(denied('dante').map(host => [host, '127.0.0.9'])) };
    const peers = await Promise.all([
      startSquid({ hosts, deny: denied('squid'), credentials: login('squid') }),
      startTinyproxy({ hosts, deny: denied('tinyproxy'), credentials: login('tinyproxy') }),
      startDante({ hosts: forDante, deny: ['127.0.0.9/32'], credentials: login('dante') }),
      startMicrosocks({ hosts, credentials: login('microsocks') }),
      startMicrosocks({ hosts, credentials: login('good') }),
    ]);
    opened.push(...peers);
    const [squid, tinyproxy, dante, microsocks, good] = peers as [Peer, Peer, Peer, Peer, Peer];
    const sshd = await startSshd({ hosts });
    // PermitOpen is by address, not by name: another server has the rules.
    const strict = await startSshd({ hosts, config: ['PermitOpen 127.0.0.1:1'] });
    const stranger = await startSshd({ hosts });
    opened.push(sshd, strict, stranger);

    const ssh = (to: Sshd, key: Sshd) =>
      `{ kind: ssh, host: 127.0.0.1, port: ${to.port}, username: ${to.username}, ssh: { key: ${key.keyFile}, hostKey: "${to.fingerprints[0]}" } }`;
    const wrong = (peer: Peer) => peer.url.replace(/:[^:@]*@/, ':wrong@');
    const lines = {
      hops: [`  good: ${good.url}`],
      routes: [] as string[],
      sites: [] as string[],
      names: [] as string[],
    };
    for (const { number, hop, no, next, host } of cells) {
      const peer = { squid, tinyproxy, dante, microsocks, ssh: null }[hop];
      const isWrong = no === 'the login is wrong';
      const isDenied = no === 'by its rules';
      const is =
        peer === null
          ? ssh(isDenied ? strict : sshd, isWrong ? stranger : isDenied ? strict : sshd)
          : isWrong
            ? wrong(peer)
            : peer.url;
      lines.hops.push(`  h${number}: ${is}`);
      const more = { 'next works': ', [good]', 'no other': '', open: '' }[next];
      lines.routes.push(`  r${number}: { chains: [[h${number}]${more}]${next === 'open' ? ', else: companion' : ''} }`);
      lines.sites.push(`  ${host}: r${number}`);
      lines.names.push(`    ${host}: 127.0.0.1`);
    }
    companion = await startTestCompanion(
      `guard: { allow: [127.0.0.0/8] }\ndns:\n  hosts:\n${lines.names.join('\n')}\nhops:\n${lines.hops.join('\n')}\n` +
        `routes:\n${lines.routes.join('\n')}\nsites:\n${lines.sites.join('\n')}\n`,
    );
    link = await TestLink.open(companion.port, TOKEN_PREFIX + cliToken(companion));
    await link.ask({ type: 'follow' });
  }, 120_000);

  afterAll(async () => {
    await link?.[Symbol.asyncDispose]();
    await companion?.[Symbol.asyncDispose]();
    await Promise.all(opened.map(one => one[Symbol.asyncDispose]()));
  });

  test.each(cells.map(cell => [cell.hop, cell.no, cell.way, cell.method, cell.next, cell] as const))(
    '%s, %s: %s %s, %s',
    async (_hop, _no, _way, _method, _next, cell) => {
      const away = cell.no === 'the target is away';
      const port = away ? ports.closed : cell.way === 'http' ? ports.http : ports.https;
      const got = await askFor(cell, cell.way, companion.port, port, ca);
      const { exchange } = (await link.until(
        heard => heard.type === 'exchange' && heard.exchange.host === cell.host && heard.exchange.took !== undefined,
      )) as { exchange: Exchange };
      const came = seen.filter(one => one.host === cell.host);
      const why = JSON.stringify({ got: { ...got, body: got.body.slice(0, 300) }, attempts: exchange.attempts });

      expect(came.length, why).toBeLessThanOrEqual(1);
      expect(came.map(one => one.fields).join(), 'no login came to the origin').not.toMatch(/pw-1|proxy-auth/i);
      const [first, second] = exchange.attempts;
      expect(first!.chain, why).toEqual([`h${cell.number}`]);
      // With nobody to go on to, and where it must not be sent again, what the hop said goes to the client as it came.
      const isSentOnce = cell.method === 'POST' && away;
      const relays = cell.way === 'http' && first!.outcome === 'ok' && (cell.next === 'no other' || isSentOnce);
      if (first!.outcome === 'proxy_configuration_error') {
        // A 407 that leads nowhere is never passed on: a browser would ask the person for a password that is not theirs to give.
        expect([cell.no, cell.next, got.status], why).toEqual(['the login is wrong', 'no other', 500]);
        return;
      }
      expect(first!.verdict, why).toBe('proxy');
      expect(first!.sign, why).toBe(SAYS[cell.no].sign);
      if (!relays) {
        expect(first!.outcome, why).toBe(SAYS[cell.no].outcome);
      }
      if (cell.next === 'no other' || away) {
        expect(came, why).toEqual([]);
        if (got.status !== null) expect(got.status, why).toBeGreaterThanOrEqual(400);
        expect(got.status, why).not.toBe(407);
        return;
      }
      expect(second!.chain, why).toEqual(cell.next === 'open' ? [] : ['good']);
      expect(got.status, why).toBe(200);
      expect(got.body).toBe(cell.method === 'HEAD' ? '' : pageOf(cell.method, bodyOf(cell.method)));
      expect(came.map(one => one.body.equals(bodyOf(cell.method)))).toEqual([true]);
    },
  );
});
