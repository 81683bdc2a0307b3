// Ways out that refuse, break and lead through one another: the page loads all the same, and the popup shows how.
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { KnownSite } from '../../shared/known-site.ts';
import { makeTestAuthority } from '../support/certificates.ts';
import { startHop } from '../support/hop.ts';
import { startMicrosocks, startSquid, startTinyproxy } from '../support/peers.ts';
import { haveSshd, startSshd } from '../support/sshd.ts';
import { startTlsFront } from '../support/tls-front.ts';
import type { BrowserOptions, TestBrowser, TestPage } from './browsers/browser.ts';
import { eventually } from './browsers/browser.ts';
import { startJourney } from './journey.ts';
import { hostsBy, WAYS } from './world.ts';

const STORY = 120_000;

const here = (page: TestPage) =>
  page.evaluate(() => document.querySelector('#here')?.textContent ?? document.body.innerText);

export function tellChains(start: (options: BrowserOptions) => Promise<TestBrowser>): void {
  test(
    'a page loads though its first proxy denies the host and its second drops the connection, and the popup shows the ladder',
    { timeout: STORY },
    async () => {
      await using denying = await startSquid({ hosts: hostsBy('squid'), deny: ['secret.test', 'hidden.test'] });
      await using dropping = await startHop({ kind: 'http', reset: true });
      await using socks = await startMicrosocks({ hosts: hostsBy('dante') });
      await using journey = await startJourney(start, {
        hops: `  office: ${denying.url}\n  flaky: http://127.0.0.1:${dropping.port}\n  third: ${socks.url}\n`,
        routes: '  work: [[office], [flaky], [third]]\n',
        sites: '  secret.test: work\n  hidden.test: work\n',
      });
      const { world, browser, companion, pictures } = journey;
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      // Over https squid refuses the CONNECT; over http it answers 403 with a page of its own. Two sites, as what was learnt of one would skip both.
      expect(await page.goto(world.secureUrl('secret.test', '/https'))).toBeNull();
      expect(await here(page)).toBe('secret.test/https');
      expect(await page.goto(world.url('hidden.test', '/http'))).toBeNull();
      expect(await here(page)).toBe('hidden.test/http');
      const seen = [...world.of('secret.test'), ...world.of('hidden.test')];
      expect(seen.map(request => [request.host, request.way])).toEqual([
        ['secret.test', 'dante'],
        ['hidden.test', 'dante'],
      ]);
      // A browser opens several connections at once, and the later ones may know already: the first went the whole ladder.
      const tried = (await companion.exchanges()).map(
        ({ host, kind, attempts }) =>
          `${host} ${kind} ${attempts.map(({ chain, outcome, verdict }) => `${chain.join()}: ${outcome} ${verdict ?? ''}`).join('; ')}`,
      );
      for (const way of ['secret.test connect', 'hidden.test http'])
        expect(tried).toContainEqual(
          expect.stringMatching(
            `^${way} office: hop_refused proxy; flaky: connection_terminated ?[a-z]*; third: ok ?[a-z]*$`,
          ),
        );
      const popup = await journey.popup(page);
      const said = /office: refused \(policy\) → flaky: broke off → third: ok/;
      await eventually('the popup shows the ladder', async () => said.test(await popup.text()));
      await popup.page.screenshot(pictures('ladder'));
    },
  );

  test.runIf(haveSshd())(
    'a chain of three hops, http, socks5 and https; and one through an SSH server',
    { timeout: STORY },
    async () => {
      const folder = mkdtempSync(path.join(tmpdir(), 'detour-chains-'));
      await using opened = new AsyncDisposableStack();
      opened.defer(() => rmSync(folder, { recursive: true, force: true }));
      const authority = await makeTestAuthority();
      const caFile = await authority.writeTo(path.join(folder, 'ca.pem'));
      const [first, second, behind, sshd] = await Promise.all([
        startTinyproxy(),
        startMicrosocks(),
        startTinyproxy({ hosts: hostsBy('squid') }),
        startSshd({ hosts: hostsBy('dante') }),
      ]);
      for (const one of [first, second, behind, sshd]) opened.use(one);
      const front = opened.use(await startTlsFront(behind.port, await authority.issue('proxy.test')));
      const tls = `{ ca: ${caFile}, servername: proxy.test }`;
      const ssh = `{ key: ${sshd.keyFile}, knownHosts: ${sshd.knownHosts} }`;
      await using journey = await startJourney(start, {
        hops:
          `  first: ${first.url}\n  second: ${second.url}\n  third: { kind: https, host: 127.0.0.1, port: ${front.port}, tls: ${tls} }\n` +
          `  gate: { kind: ssh, host: 127.0.0.1, port: ${sshd.port}, username: ${sshd.username}, ssh: ${ssh} }\n`,
        routes: '  long: [[first, second, third]]\n  shell: [[gate]]\n',
        sites: '  third.test: long\n  fourth.test: shell\n',
      });
      const { world, browser, companion } = journey;
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      for (const [host, way] of [
        ['third.test', 'squid'],
        ['fourth.test', 'dante'],
      ] as const) {
        expect(await page.goto(world.url(host, '/http'))).toBeNull();
        expect(await here(page)).toBe(`${host}/http`);
        expect(await page.goto(world.secureUrl(host, '/https'))).toBeNull();
        expect(await here(page)).toBe(`${host}/https`);
        expect(world.of(host).map(request => request.way)).toEqual([way, way]);
      }
      expect(sshd.logins).toBe(1);
      expect(new Set(front.names)).toEqual(new Set(['proxy.test']));
      const exchanges = await companion.exchanges();
      const chainOf = (host: string) => exchanges.find(one => one.host === host)?.attempts.at(-1)?.chain;
      expect(chainOf('third.test')).toEqual(['first', 'second', 'third']);
      expect(chainOf('fourth.test')).toEqual(['gate']);
    },
  );

  test(
    'an auto route learns that a site is blocked, and un-learns it when it no longer is',
    { timeout: STORY },
    async () => {
      await using socks = await startMicrosocks({ hosts: hostsBy('dante') });
      await using journey = await startJourney(start, {
        hops: `  far: ${socks.url}\n`,
        routes: '  smart: { chains: [[far]], pick: auto }\n',
        sites: '  third.test: smart\n',
        hosts: { 'third.test': CENSOR },
      });
      const { world, browser, companion } = journey;
      // The companion's own way to the site leads past somebody who resets it, or lets it pass.
      await using censor = await startCensor([world.httpPort, world.httpsPort]);
      const page = await browser.newPage();
      await journey.pairAndUse(page);
      let loads = 0;
      const load = async (): Promise<string | undefined> => {
        const at = `/load-${loads++}`;
        expect(await page.goto(world.secureUrl('third.test', at))).toBeNull();
        return world.of('third.test').find(request => request.path === at)?.way;
      };

      // Blocked: the page loads in the same breath, by the chain. On a busy machine the chain may win the race at first, and nothing is learned by that.
      await eventually(
        'the own connection was reset, and the chain got through',
        async () => {
          expect(await load()).toBe('dante');
          return (await companion.exchanges()).some(
            ({ host, attempts }) =>
              host === 'third.test' &&
              attempts.map(({ chain, outcome }) => `${chain.join()}: ${outcome}`).join() ===
                ': connection_terminated,far: ok',
          );
        },
        30_000,
      );
      // Known: the own connection is not even tried.
      await eventually('a load goes by the chain alone', async () => {
        const before = censor.asked;
        return (await load()) === 'dante' && censor.asked === before;
      });

      // It is no longer blocked, and the time for which it is known is over: what is kept over a restart is dated back.
      censor.letPass();
      const file = path.join(path.dirname(companion.configFile), 'state', 'auto-sites.json');
      const kept = () =>
        existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { sites: KnownSite[] }).sites : [];
      await eventually('it is kept', () => kept().some(({ site }) => site === 'third.test'));
      await companion.kill('SIGKILL');
      const sites = kept().map(known => ({ ...known, until: Date.now() }));
      writeFileSync(file, JSON.stringify({ version: 1, sites }), { mode: 0o600 });
      await companion.startAgain();
      // On a busy machine the chain may win a race or two first.
      await eventually('the site goes directly again', async () => (await load()) === 'companion', 30_000);
      await eventually('it is forgotten', () => kept().length === 0);
    },
  );
}

/** Where the companion finds the site that somebody stands in front of. */
const CENSOR = '127.0.0.6';

/** Resets every connection as soon as it says anything, until it lets all pass to where the companion would have found the world. */
async function startCensor(ports: readonly number[]) {
  let asked = 0;
  let passes = false;
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
  };
  const servers = ports.map(port =>
    createServer(socket => {
      asked++;
      keep(socket);
      if (!passes) return void socket.once('data', () => socket.resetAndDestroy());
      const onward = connect(port, WAYS.companion);
      keep(onward);
      socket.pipe(onward).pipe(socket);
      socket.on('close', () => onward.destroy());
      onward.on('close', () => socket.destroy());
    }).listen(port, CENSOR),
  );
  await Promise.all(servers.map(server => once(server, 'listening')));
  return {
    get asked() {
      return asked;
    },
    letPass() {
      passes = true;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))));
    },
  };
}
