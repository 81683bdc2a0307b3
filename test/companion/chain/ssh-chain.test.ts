// An ssh hop among others, dialled as the companion dials: behind a proxy, before a proxy, kept over dials.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeDial } from '../../../companion/chain/dial.ts';
import { makeSshHops } from '../../../companion/chain/ssh-hop.ts';
import type { Acl, AdmittedTarget, Chain, NamedHop, Try } from '../../../companion/rooms.ts';
import { Fault } from '../../../shared/fault.ts';
import { closedPort, startHop } from '../../support/hop.ts';
import { startOrigin } from '../../support/origin.ts';
import { haveSshd, type Sshd, startSshd } from '../../support/sshd.ts';

describe.runIf(haveSshd())('with a real sshd', { timeout: 30_000 }, () => {
  let sshd: Sshd;
  let gate: NamedHop;
  beforeAll(async () => {
    sshd = await startSshd({ hosts: { 'origin.test': '127.0.0.1' } });
    const ssh = { key: sshd.key, hostKey: sshd.fingerprints[0]! };
    gate = { name: 'gate', kind: 'ssh', host: '127.0.0.1', port: sshd.port, username: sshd.username, ssh };
  });
  afterAll(async () => sshd[Symbol.asyncDispose]());

  const acl = { admitsAddress: () => null, admitsHopAddress: () => null } as unknown as Acl;
  const tryOf = (hops: readonly NamedHop[]): Try => {
    const chain: Chain = { key: hops.map(hop => hop.name).join('>'), hops };
    return { chain, signal: new AbortController().signal, steps: [], stage: 'connect' };
  };
  const dialling = () => {
    const ssh = makeSshHops();
    const dial = makeDial({ acl, hopTimeout: 10_000, ssh });
    return { dial, ssh, [Symbol.dispose]: () => ssh.close() };
  };
  /** GET through a dialled connection, to its end. */
  const get = async (made: ReturnType<typeof dialling>, one: Try, target: { host: string; port: number }) => {
    const { socket, rest } = await made.dial(one, target as AdmittedTarget, false);
    let text = rest.toString();
    socket.write(`GET / HTTP/1.1\r\nHost: ${target.host}\r\nConnection: close\r\n\r\n`);
    await new Promise((resolve, reject) => {
      socket
        .on('data', chunk => (text += chunk.toString()))
        .on('end', resolve)
        .on('error', reject);
      socket.resume();
    });
    return text;
  };

  test('http, then ssh, then socks5: the ssh connection is made once, and every hop sees the next one only', async () => {
    await using origin = await startOrigin();
    await using first = await startHop({ kind: 'http' });
    await using last = await startHop({ kind: 'socks5', hosts: { 'origin.test': '127.0.0.1' } });
    using made = dialling();
    const hops = [{ ...first.hop, name: 'first' }, gate, { ...last.hop, name: 'last' }];
    const target = { host: 'origin.test', port: origin.port };
    const before = sshd.logins;
    const tries = [tryOf(hops), tryOf(hops), tryOf(hops)];
    const told = await Promise.all(tries.map(one => get(made, one, target)));
    for (const text of told) expect(text).toMatch(/^HTTP\/1\.1 200/);
    expect(first.connections).toBe(1);
    expect(first.requests[0]).toMatch(new RegExp(`^CONNECT 127\\.0\\.0\\.1:${sshd.port} `));
    expect(sshd.logins).toBe(before + 1);
    expect(last.requests).toEqual(Array(3).fill(`socks5 origin.test:${origin.port}`));
    // Who made it went every step; to the others, what stood took no time.
    for (const one of tries) expect(one.steps.map(step => step.hop)).toEqual(['first', 'gate', 'last', null]);
    const measured = tries.map(one => one.steps.slice(0, 2).filter(step => step.took > 0).length);
    expect(measured.sort()).toEqual([0, 0, 2]);
  });

  test('two ssh hops behind each other', async () => {
    await using origin = await startOrigin();
    await using other = await startSshd({ hosts: { 'origin.test': '127.0.0.1' } });
    using made = dialling();
    const inner = {
      ...gate,
      name: 'inner',
      port: other.port,
      ssh: { key: other.key, knownHosts: `[127.0.0.1]:${other.port} ${other.hostKeys[0]}\n` },
    };
    expect(await get(made, tryOf([gate, inner]), { host: 'origin.test', port: origin.port })).toMatch(
      /^HTTP\/1\.1 200/,
    );
    expect(made.ssh.size).toBe(2);
  });

  test('what is wrong before the ssh hop is blamed on what is before it', async () => {
    using made = dialling();
    const away = { name: 'away', kind: 'socks5', host: '127.0.0.1', port: await closedPort() } as const;
    const one = tryOf([away, gate]);
    const error = await made.dial(one, { host: 'a.test', port: 80 } as AdmittedTarget, false).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(Fault);
    expect([(error as Fault).kind, (error as Fault).hop]).toEqual(['connection_refused', 'away']);
    expect([one.stage, one.steps]).toEqual(['connect', []]);
    expect(made.ssh.size).toBe(0);
  });

  test('who waited for a login that failed is told where, as the one is who made it', async () => {
    await using first = await startHop({ kind: 'http' });
    using made = dialling();
    const stranger = { ...gate, ssh: { ...gate.ssh, hostKey: `SHA256:${'A'.repeat(43)}` } };
    const tries = [1, 2, 3].map(() => tryOf([{ ...first.hop, name: 'first' }, stranger]));
    const faults = await Promise.all(
      tries.map(one => made.dial(one, { host: 'a.test', port: 80 } as AdmittedTarget, false).catch((e: Fault) => e)),
    );
    for (const [i, one] of tries.entries()) {
      expect(faults[i]).toMatchObject({ kind: 'hop_not_trusted', hop: 'gate' });
      expect([one.stage, one.steps.map(step => step.hop)]).toEqual(['greeting', ['first', 'gate']]);
    }
    expect(first.connections).toBe(1);
  });

  test('a hop that is only tried out is logged in to, and nothing is kept', async () => {
    using made = dialling();
    const before = sshd.logins;
    const nowhere = { host: 'a.test', port: 80 } as AdmittedTarget;
    (await made.dial(tryOf([gate]), nowhere, true)).socket.destroy();
    expect([sshd.logins, made.ssh.size]).toEqual([before + 1, 0]);
    const locked = { ...gate, ssh: { ...gate.ssh, key: 'none' } };
    await expect(made.dial(tryOf([locked]), nowhere, true)).rejects.toMatchObject({ kind: 'hop_login_unusable' });
  });

  test('two chains that begin alike share the connection; with another login there is another', async () => {
    await using origin = await startOrigin();
    using made = dialling();
    const target = { host: 'origin.test', port: origin.port };
    await get(made, tryOf([gate]), target);
    await get(made, tryOf([{ ...gate }]), target);
    expect(made.ssh.size).toBe(1);
    await get(made, tryOf([{ ...gate, ssh: { ...gate.ssh, passphrase: 'unused' } }]), target);
    expect(made.ssh.size).toBe(2);
  });
});
