// The programs of others that tests and bench run against: browsers, proxies, command line tools. As root on Debian what is missing
// is installed, without letting its services start; elsewhere we use what there is.
import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Milliseconds } from '../../shared/units.ts';
import { runProgram } from './stage.ts';

/** Any one of `programs` will do; `debian` is the package that brings the first. */
export interface Peer {
  programs: readonly string[];
  debian: string;
  neededFor: string;
  /** The services that the package would start. */
  services?: readonly string[];
}

/** What `npm test` wants to find. */
export const PEERS: readonly Peer[] = [
  {
    programs: ['chromium', 'chromium-browser', 'google-chrome'],
    debian: 'chromium',
    neededFor: 'journeys in Chromium',
  },
  { programs: ['firefox-esr', 'firefox'], debian: 'firefox-esr', neededFor: 'journeys in Firefox' },
  { programs: ['certutil'], debian: 'libnss3-tools', neededFor: 'journeys over https' },
  { programs: ['squid'], debian: 'squid', neededFor: 'chains through squid', services: ['squid'] },
  { programs: ['tinyproxy'], debian: 'tinyproxy', neededFor: 'chains through tinyproxy', services: ['tinyproxy'] },
  { programs: ['danted'], debian: 'dante-server', neededFor: 'chains through dante', services: ['danted'] },
  { programs: ['microsocks'], debian: 'microsocks', neededFor: 'chains through microsocks', services: ['microsocks'] },
  {
    programs: ['sshd'],
    debian: 'openssh-server',
    neededFor: 'chains through an SSH server',
    services: ['ssh', 'ssh.socket'],
  },
  { programs: ['curl'], debian: 'curl', neededFor: 'requests as curl makes them' },
  { programs: ['ip'], debian: 'iproute2', neededFor: 'leak tests in network namespaces' },
  { programs: ['tcpdump'], debian: 'tcpdump', neededFor: 'leak tests in network namespaces' },
];

/** What `npm run bench` measures, and what makes its load. */
export const BENCH_PEERS: readonly Peer[] = [
  { programs: ['wrk'], debian: 'wrk', neededFor: 'the load of the bench' },
  ...PEERS.filter(peer => peer.debian === 'squid' || peer.debian === 'tinyproxy'),
  {
    programs: ['traffic_server'],
    debian: 'trafficserver',
    neededFor: 'the bench beside Traffic Server',
    services: ['trafficserver'],
  },
  {
    programs: ['privoxy'],
    debian: 'privoxy',
    neededFor: 'the bench beside privoxy',
    services: ['privoxy', 'privoxy-cleanup.timer'],
  },
  { programs: ['haproxy'], debian: 'haproxy', neededFor: 'the bench beside haproxy', services: ['haproxy'] },
];

/** The full path of a program, also of those that Debian puts where only root looks; undefined when it is not there. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin'];
  return folders
    .filter(folder => folder !== '')
    .map(folder => path.join(folder, name))
    .find(file => existsSync(file));
}

/** Installs what is missing where that is possible; gives back what is missing still. */
export async function ensurePeers(peers: readonly Peer[], limit: Milliseconds): Promise<Peer[]> {
  const isMissing = (peer: Peer) => !peer.programs.some(findProgram);
  const missing = peers.filter(isMissing);
  if (missing.length === 0) return [];
  if (process.getuid?.() !== 0 || !existsSync('/etc/debian_version') || !findProgram('apt-get')) return missing;
  await installFromDebian(missing, limit);
  return missing.filter(isMissing);
}

const POLICY = '/usr/sbin/policy-rc.d';
const POLICY_ASIDE = `${POLICY}.before-detour`;

async function installFromDebian(missing: readonly Peer[], limit: Milliseconds): Promise<void> {
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const options = ['-y', '-q', '-o', 'DPkg::Lock::Timeout=120', '-o', 'Dpkg::Options::=--force-confold'];
  const packages = missing.map(peer => peer.debian);
  process.stdout.write(`installing ${packages.join(' ')}\n`);
  const steps = [['update'], ['install', '--no-install-recommends', ...packages]];
  const restore = forbidServiceStarts();
  process.once('exit', restore);
  try {
    for (const step of steps) {
      const result = await runProgram('apt-get', [...options, ...step], { show: false, limit, env });
      if (result.ok) continue;
      process.stdout.write(result.printed);
      return;
    }
  } finally {
    restore();
    process.off('exit', restore);
  }
  // A machine run by systemd would start them at its next boot.
  const services = missing.flatMap(peer => peer.services ?? []);
  if (services.length > 0 && existsSync('/run/systemd/system')) {
    await runProgram('systemctl', ['disable', ...services], { show: false, limit: 30_000 });
  }
}

/** Debian asks /usr/sbin/policy-rc.d before it starts a service; 101 means no. Gives back what undoes it. */
function forbidServiceStarts(): () => void {
  // One put aside already is the machine's own: an earlier run was killed, and what stands in its place is ours.
  if (existsSync(POLICY) && !existsSync(POLICY_ASIDE)) renameSync(POLICY, POLICY_ASIDE);
  const hadOne = existsSync(POLICY_ASIDE);
  writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  let undone = false;
  return () => {
    if (undone) return;
    undone = true;
    rmSync(POLICY, { force: true });
    if (hadOne) renameSync(POLICY_ASIDE, POLICY);
  };
}
