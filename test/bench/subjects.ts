// The proxies that are measured, each with a configuration that does the job with as little beside it as its manual allows: no logs, no own fields, memory
// for 64 MiB of answers where it caches, one thread for the traffic (they all share one core).
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TASKS } from '../../bootstrap.mjs';
import { withSnapshot } from '../../companion/snapshot/make.mjs';
import { findProgram } from '../support/ensure-peers.ts';
import type { Parent, Place, Subject } from './proxies.ts';

const FLOOR = fileURLToPath(new URL('./floor.ts', import.meta.url));
const WALL = fileURLToPath(new URL('./wall.ts', import.meta.url));
const CHAIN_PROXY = fileURLToPath(new URL('./chain-proxy.ts', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));

const written = (folder: string, name: string, lines: readonly string[]): string => {
  const path = join(folder, name);
  writeFileSync(path, `${lines.join('\n')}\n`, { mode: 0o600 });
  return path;
};

const urlOf = ({ kind, port }: Parent) => `${kind === 'socks5' ? kind : 'http'}://127.0.0.1:${port}`;

const missing = (program: string, debian: string) =>
  findProgram(program) === undefined ? `${program} is not installed (on Debian: apt-get install ${debian})` : null;

export interface DetourOptions {
  /** The command that starts the companion, without its options; null = as `npm start` runs it, or the source where nothing is built. */
  readonly companion: readonly string[] | null;
  /** More options for its Node, behind the program's name. */
  readonly nodeOptions: readonly string[];
  /** Also with `guard.owner: on`. */
  readonly withOwner: boolean;
}

/** All that can be measured, in the order of the table. */
export function subjects(options: DetourOptions): Subject[] {
  return [
    detour('detour', options, []),
    ...(options.withOwner ? [detour('detour+owner', options, ['owner: on'])] : []),
    squid,
    trafficServer,
    tinyproxy,
    privoxy,
    proxyChain,
    haproxy,
    node('node:http', FLOOR),
    node('wall', WALL),
  ];
}

function detour(name: string, options: DetourOptions, guard: readonly string[]): Subject {
  const [script, ...before] = TASKS['start']!.run!.toReversed();
  const built = join(root, script!);
  const start = options.companion ?? [
    process.execPath,
    ...withSnapshot(before.toReversed(), root),
    existsSync(built) ? built : join(root, 'companion/main.ts'),
  ];
  const [program, ...args] = start;
  return {
    name,
    kind: 'detour',
    missing: options.companion !== null || existsSync(start.at(-1)!) ? null : 'the companion is not built',
    caches: true,
    keeps: true,
    reverse: false,
    skills: ['http', 'http-connect', 'socks5', 'fallback'],
    unprivileged: false,
    command: ({ port, folder, parent, cacheMiB }) => [
      program!,
      ...options.nodeOptions,
      ...args,
      'start',
      '--config',
      written(folder, 'detour.yaml', [
        `listen: 127.0.0.1:${port}`,
        `guard: { ${['allow: [127.0.0.0/8]', 'connectPorts: [1-65535]', ...guard].join(', ')} }`,
        'limits: { connections: 16000 }',
        `cache: { memory: ${cacheMiB}MiB }`,
        ...(parent === null
          ? []
          : [
              `hops: { refusing: "http://127.0.0.1:${parent.refusing}", parent: "${urlOf(parent)}" }`,
              `routes: { out: { chains: ${parent.kind === 'fallback' ? '[[refusing], [parent]]' : '[[parent]]'} } }`,
              'default: out',
            ]),
      ]),
    ],
  };
}

const squid: Subject = {
  name: 'squid',
  kind: 'peer',
  missing: missing('squid', 'squid'),
  caches: true,
  keeps: true,
  reverse: false,
  skills: ['http', 'http-connect'],
  unprivileged: true,
  command: ({ port, folder, parent, cacheMiB }) => [
    findProgram('squid')!,
    '-N',
    // Its shared memory has names of its own then.
    '-n',
    `bench${port}`,
    '-f',
    written(folder, 'squid.conf', [
      `http_port 127.0.0.1:${port}`,
      'http_access allow all',
      'workers 1',
      `cache_mem ${cacheMiB} MB`,
      'maximum_object_size_in_memory 8 MB',
      'access_log none',
      'cache_log /dev/null',
      'cache_store_log none',
      'pid_filename none',
      'netdb_filename none',
      `coredump_dir ${folder}`,
      'pinger_enable off',
      'shutdown_lifetime 0 seconds',
      'max_filedescriptors 16384',
      'via off',
      'forwarded_for delete',
      ...(parent === null
        ? []
        : [`cache_peer 127.0.0.1 parent ${parent.port} 0 no-query no-digest default`, 'never_direct allow all']),
    ]),
  ],
  // It takes two seconds to end, and the bench waits for one.
  leaves: ({ port }) => ['metadata', 'queues', 'readers'].map(part => `/dev/shm/bench${port}-cf__${part}.shm`),
};

const trafficServer: Subject = {
  name: 'trafficserver',
  kind: 'peer',
  missing: missing('traffic_server', 'trafficserver'),
  caches: true,
  keeps: true,
  reverse: false,
  // A CONNECT through a parent got no answer.
  skills: ['http'],
  unprivileged: true,
  command: ({ port, folder, parent, cacheMiB }) => {
    const inner = (name: string) => {
      mkdirSync(join(folder, name));
      return join(folder, name);
    };
    const [etc, state, run, logs, cache] = ['etc', 'state', 'run', 'log', 'cache'].map(inner);
    const bodies = '/etc/trafficserver/body_factory';
    if (existsSync(bodies)) cpSync(bodies, join(etc!, 'body_factory'), { recursive: true });
    for (const name of ['remap.config', 'plugin.config', 'logging.yaml', 'cache.config', 'sni.yaml']) {
      written(etc!, name, []);
    }
    for (const name of ['ssl_multicert.config', 'hosting.config', 'volume.config']) written(etc!, name, []);
    written(
      etc!,
      'parent.config',
      parent === null ? [] : [`dest_ip=0.0.0.0-255.255.255.255 parent="127.0.0.1:${parent.port}" go_direct=false`],
    );
    written(etc!, 'storage.config', [`${cache} ${cacheMiB * 2}M`]);
    written(etc!, 'ip_allow.yaml', [
      'ip_allow:',
      '  - { apply: in, ip_addrs: 127.0.0.1, action: allow, methods: ALL }',
    ]);
    const set = (name: string, type: 'INT' | 'STRING', value: string | number) =>
      `CONFIG proxy.config.${name} ${type} ${value}`;
    written(etc!, 'records.config', [
      set('http.server_ports', 'STRING', `${port}:ip-in=127.0.0.1`),
      set('exec_thread.autoconfig', 'INT', 0),
      set('exec_thread.limit', 'INT', 1),
      // Whatever taskset said, it gives its threads to cores itself: 4 gives its first one to the first core, which is the proxies'.
      set('exec_thread.affinity', 'INT', 4),
      set('accept_threads', 'INT', 0),
      set('task_threads', 'INT', 1),
      set('admin.user_id', 'STRING', '#-1'),
      set('crash_log_helper', 'STRING', 'NULL'),
      set('url_remap.remap_required', 'INT', 0),
      set('reverse_proxy.enabled', 'INT', 0),
      set('http.cache.http', 'INT', 1),
      set('http.cache.required_headers', 'INT', 1),
      set('cache.ram_cache.size', 'INT', `${cacheMiB}M`),
      set('log.logging_enabled', 'INT', 0),
      set('http.insert_request_via_str', 'INT', 0),
      set('http.insert_response_via_str', 'INT', 0),
      set('http.insert_client_ip', 'INT', 0),
      set('http.response_server_enabled', 'INT', 0),
      set('http.insert_age_in_response', 'INT', 1),
      set('http.connect_ports', 'STRING', '*'),
      // Else it holds a parent on this machine to be itself.
      set('http.parent_proxy.self_detect', 'INT', 0),
      set('net.connections_throttle', 'INT', 16_000),
    ]);
    const layout = {
      prefix: folder,
      exec_prefix: '/usr',
      bindir: '/usr/bin',
      sbindir: '/usr/sbin',
      sysconfdir: etc!,
      datadir: state!,
      includedir: '/usr/include',
      libdir: '/usr/lib',
      libexecdir: '/usr/lib/trafficserver/modules',
      localstatedir: state!,
      runtimedir: run!,
      logdir: logs!,
      mandir: '/usr/share/man',
      infodir: '/usr/share/info',
      cachedir: cache!,
    };
    const runroot = written(
      folder,
      'runroot.yaml',
      Object.entries(layout).map(([name, path]) => `${name}: ${path}`),
    );
    return [findProgram('traffic_server')!, `--run-root=${runroot}`];
  },
};

const tinyproxy: Subject = {
  name: 'tinyproxy',
  kind: 'peer',
  missing: missing('tinyproxy', 'tinyproxy'),
  caches: false,
  keeps: false,
  reverse: false,
  skills: ['http', 'http-connect', 'socks5'],
  unprivileged: true,
  command: ({ port, folder, parent }) => [
    findProgram('tinyproxy')!,
    '-d',
    '-c',
    written(folder, 'tinyproxy.conf', [
      'Listen 127.0.0.1',
      `Port ${port}`,
      'MaxClients 8192',
      'Timeout 600',
      'LogLevel Critical',
      `LogFile "${join(folder, 'log')}"`,
      'DisableViaHeader Yes',
      ...(parent === null ? [] : [`Upstream ${parent.kind} 127.0.0.1:${parent.port}`]),
    ]),
  ],
};

const privoxy: Subject = {
  name: 'privoxy',
  kind: 'peer',
  missing: missing('privoxy', 'privoxy'),
  caches: false,
  keeps: true,
  reverse: false,
  skills: ['http', 'http-connect', 'socks5'],
  unprivileged: true,
  command: ({ port, folder, parent }) => [
    findProgram('privoxy')!,
    '--no-daemon',
    written(folder, 'config', [
      `confdir ${folder}`,
      'templdir /etc/privoxy/templates',
      `logdir ${folder}`,
      'logfile log',
      // Fatal errors only.
      'debug 8192',
      `listen-address 127.0.0.1:${port}`,
      'toggle 0',
      'enable-remote-toggle 0',
      'keep-alive-timeout 300',
      'default-server-timeout 300',
      'connection-sharing 1',
      'socket-timeout 600',
      'tolerate-pipelining 1',
      'max-client-connections 8192',
      'listen-backlog 4096',
      ...(parent === null
        ? []
        : [
            parent.kind === 'http'
              ? `forward / 127.0.0.1:${parent.port}`
              : `forward-socks5 / 127.0.0.1:${parent.port} .`,
          ]),
    ]),
  ],
};

/** A reverse proxy: it need not read where a request goes, and its tunnels are plain TCP without CONNECT. */
const haproxy: Subject = {
  name: 'haproxy',
  kind: 'reference',
  missing: missing('haproxy', 'haproxy'),
  caches: true,
  keeps: true,
  reverse: true,
  skills: ['http'],
  unprivileged: true,
  command: ({ port, folder, parent, origin, tunnelPorts, cacheMiB }: Place) => [
    findProgram('haproxy')!,
    '-q',
    '-f',
    written(folder, 'haproxy.cfg', [
      'global',
      '  nbthread 1',
      '  maxconn 7000',
      'defaults',
      '  mode http',
      '  timeout connect 5s',
      '  timeout client 600s',
      '  timeout server 600s',
      '  http-reuse always',
      'cache answers',
      `  total-max-size ${cacheMiB}`,
      '  max-object-size 2000000',
      '  max-age 3600',
      'frontend http',
      `  bind 127.0.0.1:${port} backlog 4096`,
      '  acl cacheable path_beg /hit',
      '  http-request cache-use answers if cacheable',
      '  http-response cache-store answers',
      '  default_backend origin',
      'backend origin',
      `  server origin 127.0.0.1:${parent?.port ?? origin.http}`,
      ...(['bulk', 'sink', 'echo'] as const).flatMap(target => [
        `listen ${target}`,
        '  mode tcp',
        `  bind 127.0.0.1:${tunnelPorts[target]} backlog 4096`,
        `  server ${target} 127.0.0.1:${origin[target]}`,
      ]),
    ]),
  ],
};

const proxyChain: Subject = {
  name: 'proxy-chain',
  kind: 'peer',
  missing: null,
  caches: false,
  keeps: true,
  reverse: false,
  skills: ['http', 'http-connect', 'socks5'],
  unprivileged: false,
  command: ({ port, parent }) => [
    process.execPath,
    CHAIN_PROXY,
    String(port),
    ...(parent === null ? [] : [urlOf(parent)]),
  ],
};

function node(name: string, script: string): Subject {
  return {
    name,
    kind: 'floor',
    missing: null,
    caches: true,
    keeps: true,
    reverse: false,
    skills: ['http'],
    unprivileged: false,
    command: ({ port, folder, parent }) => {
      // As plain JavaScript: to have Node take the types out would make its start look dear.
      const plain = join(folder, 'floor.mjs');
      writeFileSync(plain, stripTypeScriptTypes(readFileSync(script, 'utf8')));
      return [process.execPath, plain, String(port), ...(parent === null ? [] : [String(parent.port)])];
    },
  };
}
