// Ways out that refuse, break and lead through one another: the page loads all the same, and the popup shows how.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { makeTestAuthority } from '../support/certificates.ts';
import { startHop } from '../support/hop.ts';
import { startMicrosocks, startSquid, startTinyproxy } from '../support/peers.ts';
import { haveSshd, startSshd } from '../support/sshd.ts';
import { startTlsFront } from '../support/tls-front.ts';
import type { BrowserOptions, TestBrowser, TestPage } from './browsers/browser.ts';
import { eventually } from './browsers/browser.ts';
import { startJourney } from './journey.ts';
import { hostsBy } from './world.ts';

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
      // A browser opens several connections at once: the one that asked first went the whole ladder.
      for (const [host, kind] of [
        ['secret.test', 'connect'],
        ['hidden.test', 'http'],
      ] as const) {
        const tried = (await companion.exchanges()).find(one => one.host === host && one.attempts.length > 1)!;
        expect(tried.kind).toBe(kind);
        expect(tried.attempts.map(({ chain, outcome }) => [chain.join(), outcome])).toEqual([
          ['office', 'hop_refused'],
          ['flaky', 'connection_terminated'],
          ['third', 'ok'],
        ]);
        expect(tried.attempts[0]!.verdict).toBe('proxy');
      }
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
}
