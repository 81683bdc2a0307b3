import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as v from 'valibot';
import { BUILT_IN_ROUTES, ROUTE_DEFAULTS } from '../../shared/config/routes.ts';
import { ConfigSchema, MAX_HAND_WRITTEN } from '../../shared/config.ts';
import { nearest } from '../../shared/config/words.ts';
import { parseHopUrl } from '../../shared/config/hops.ts';

const read = (input: unknown) => v.parse(ConfigSchema, input);
/** `path: message` of everything that is wrong. */
const faults = (input: unknown): string[] =>
  (v.safeParse(ConfigSchema, input).issues ?? []).map(
    issue => `${issue.path?.map(item => String(item.key)).join('/') ?? ''}: ${issue.message}`,
  );

describe('defaults', () => {
  test('an empty configuration listens on loopback, steers nothing and has every section', () => {
    const config = read({});
    expect(config.listen).toEqual({ host: '127.0.0.1', port: 8228 });
    expect(config.default).toBe('companion');
    expect([config.hops, config.routes, config.sites]).toEqual([{}, {}, {}]);
    expect([config.rules, config.lists, config.guard.allow]).toEqual([[], [], []]);
    expect(config.guard.connectPorts).toEqual([
      { from: 80, to: 80 },
      { from: 443, to: 443 },
      { from: 1024, to: 65535 },
    ]);
    expect(config.cache.memory).toBe(64 * 1024 * 1024);
    expect(config.log.file).toBeNull();
  });

  test('a section whose entries are all commented out counts as absent', () => {
    const empty = {
      hops: null,
      routes: null,
      sites: null,
      rules: null,
      lists: null,
      guard: null,
      cache: null,
      log: null,
    };
    expect(read({ ...empty, limits: null })).toEqual(read({}));
  });
});

test('workers is a number of processes or auto', () => {
  expect(read({}).workers).toBe(1);
  expect(read({ workers: 64 }).workers).toBe(64);
  expect(read({ workers: 'auto' }).workers).toBe('auto');
  expect(faults({ workers: 0 })).toEqual(['workers: must be at least 1']);
  expect(faults({ workers: 65 })).toEqual(['workers: must be at most 64']);
  expect(faults({ workers: 'many' })).toEqual(['workers: is neither a number of processes nor auto']);
});

describe('cache', () => {
  test('says nothing: both tiers, sites apart, as a shared cache', () => {
    expect(read({}).cache).toEqual({
      memory: 64 * 1024 ** 2,
      disk: 1024 ** 3,
      entry: 8 * 1024 ** 2,
      partition: 'site',
      semantics: 'shared',
      targeted: [],
      heuristic: 86_400,
      offline: 'on',
      collapse: 'on',
      collapseWait: 5,
      finish: 1024 ** 2,
      aggressive: 3_600,
    });
  });

  test('takes every setting', () => {
    const cache = {
      memory: 0,
      disk: 0,
      entry: 1,
      partition: 'none',
      semantics: 'private',
      targeted: ['detour-cache-control', 'cdn-cache-control'],
      heuristic: 0,
      offline: 'off',
      collapse: 'off',
      collapseWait: 0.5,
      finish: 0,
      aggressive: 604_800,
    };
    expect(read({ cache: { ...cache, targeted: ['Detour-Cache-Control', 'CDN-Cache-Control'] } }).cache).toEqual(cache);
  });

  test.each([
    ['partition', 'page', 'is not a partition: site or none'],
    ['semantics', 'public', 'is not a kind of cache: shared or private'],
    ['targeted', 'CDN-Cache-Control', 'is not a list of fields: write [CDN-Cache-Control]'],
    ['targeted', Array.from({ length: 9 }, () => 'CDN-Cache-Control'), 'has more than 8 fields'],
    ['heuristic', -1, 'is negative'],
    ['heuristic', '1d', 'is not a number of seconds'],
    ['offline', true, 'is not on or off'],
    ['collapse', 'yes', 'is not on or off'],
    ['collapseWait', 0, 'is too short'],
    ['finish', '1 minute', '"1 minute" is not a size: write a number of bytes or, for example, 64MiB'],
    ['aggressive', 604_801, 'is longer than a week'],
    ['disk', 'lots', '"lots" is not a size: write a number of bytes or, for example, 64MiB'],
  ])('%s: %j is refused', (key, value, sentence) => {
    expect(faults({ cache: { [key]: value } })).toEqual([`cache/${key}: ${sentence}`]);
  });

  test('a targeted field is named as such fields are', () => {
    for (const name of ['Cache-Control', 'Surrogate-Control', 'CDN Cache-Control', '']) {
      expect(faults({ cache: { targeted: [name] } })).toEqual([
        'cache/targeted/0: is not the name of a targeted field, such as CDN-Cache-Control',
      ]);
    }
  });

  test('is not private where several people use the proxy', () => {
    const refused = ['cache/semantics: cannot be private where several people use this proxy'];
    const cache = { semantics: 'private' };
    expect(faults({ cache, guard: { users: { ann: 'a', bob: 'b' } } })).toEqual(refused);
    expect(faults({ cache, guard: { otherMachines: true } })).toEqual(refused);
    expect(faults({ cache, guard: { users: { ann: 'a' } } })).toEqual([]);
    expect(faults({ guard: { users: { ann: 'a', bob: 'b' } } })).toEqual([]);
  });
});

describe('hops', () => {
  test.each([
    ['socks5://gw.example:1080', { kind: 'socks5', host: 'gw.example', port: 1080 }],
    ['socks5h://GW.example', { kind: 'socks5', host: 'gw.example', port: 1080 }],
    ['http://proxy.example/', { kind: 'http', host: 'proxy.example', port: 3128 }],
    [
      'http://me:pass%40word%3a@[::1]:8080',
      { kind: 'http', host: '::1', port: 8080, username: 'me', password: 'pass@word:' },
    ],
    ['socks5://me@127.0.0.1:9050', { kind: 'socks5', host: '127.0.0.1', port: 9050, username: 'me', password: '' }],
  ])('%s is a hop', (url, hop) => {
    expect(parseHopUrl(url)).toEqual(hop);
  });

  test.each([
    ['gw.example:1080', 'is not a proxy URL: write it like socks5://user:password@host:1080'],
    ['ftp://gw.example:1080', '"ftp" is not a kind of hop: http, https, socks4a, socks5, ssh or tor'],
    ['socks5://gw.example:70000', '"70000" is not a port: ports go from 1 to 65535'],
    ['socks5://gw.example:0', '"0" is not a port: ports go from 1 to 65535'],
    ['socks5://gw.example:', 'has no port after the colon'],
    ['socks5://me:se@cret@gw.example:1080', 'has more than one @: write %40 for an @ in a user name or password'],
    ['socks5://me:s3%zz@gw.example:1080', 'has a user name or password with a broken % escape'],
    [`http://${'m'.repeat(256)}:x@gw.example:1`, 'has a user name or password longer than 255 bytes'],
  ])('%s is none', (url, sentence) => {
    expect(parseHopUrl(url)).toBe(sentence);
  });

  test('no sentence about a hop repeats its password', () => {
    const secret = 'Geh3im';
    const tails = fc.constantFrom(
      '@gw.example:1080',
      '@gw:70000',
      '@:1',
      '',
      ':',
      '@',
      '@@gw:1',
      '@gw:x',
      '@gw/path',
      ' @gw:1',
    );
    const schemes = fc.constantFrom('socks5://', 'http://', 'ftp://', 'socks5:', '//', 'socks5:/');
    fc.assert(
      fc.property(schemes, fc.constantFrom('me:', ':', 'me%zz:'), tails, (scheme, user, tail) => {
        const parsed = parseHopUrl(scheme + user + secret + tail);
        if (typeof parsed === 'string') expect(parsed).not.toContain(secret);
      }),
    );
  });

  test('the long form takes the same hop apart', () => {
    const long = { kind: 'socks5', host: 'gw.example', port: 1080, username: 'me', password: 's3cret' };
    expect(read({ hops: { office: long } }).hops).toEqual(
      read({ hops: { office: 'socks5://me:s3cret@gw.example:1080' } }).hops,
    );
    expect(faults({ hops: { office: { ...long, password: 12345 } } })).toEqual([
      'hops/office/password: is not text: put it in quotes',
    ]);
  });
});

describe('routes', () => {
  const hops = { office: 'http://a:1', squid: 'http://b:1' };

  test('a list of chains is a closed route', () => {
    expect(read({ hops, routes: { work: [['office'], ['squid', 'office']] } }).routes).toEqual({
      work: { ...ROUTE_DEFAULTS, chains: [['office'], ['squid', 'office']] },
    });
  });

  test('a route is open only by its own word', () => {
    expect(read({ hops, routes: { fast: { chains: [['squid']], else: 'companion' } } }).routes['fast']?.else).toBe(
      'companion',
    );
    expect(faults({ hops, routes: { fast: { chains: [['squid']], else: 'direct' } } })).toEqual([
      'routes/fast/else: can only be companion',
    ]);
  });

  test.each([...BUILT_IN_ROUTES, 'off'])('the name %s is taken', name => {
    expect(faults({ hops, routes: { [name]: [['squid']] } })).toEqual([
      `routes/${name}: the name "${name}" is built in; choose another`,
    ]);
  });

  test('every name must lead somewhere, and a slip of the fingers is told', () => {
    expect(
      faults({
        hops,
        routes: { work: [['offise']] },
        sites: { 'a.example': 'wrok' },
        rules: [{ host: 'b.example', route: 'q' }],
        default: 'w',
      }),
    ).toEqual([
      'routes/work/chains/0/0: names the hop "offise", which does not exist (did you mean office?)',
      'sites/a.example/route: names the route "wrok", which does not exist (did you mean work?)',
      'rules/0/route: names the route "q", which does not exist',
      'default: names the route "w", which does not exist',
    ]);
  });

  test('a hop with a fault of its own is not also missing', () => {
    expect(faults({ hops: { office: 'http://a:0' }, routes: { work: [['office']] } })).toEqual([
      'hops/office: "0" is not a port: ports go from 1 to 65535',
    ]);
  });

  describe('groups, picks and floors', () => {
    const told = (routes: unknown, more: object = {}) => faults({ hops: { ...hops, ...more }, routes });

    test('a name in place of a chain is another route, or companion', () => {
      const { routes } = read({ hops, routes: { all: [['office'], 'rest', 'companion'], rest: [['squid']] } });
      expect(routes['all']!.chains).toEqual([['office'], 'rest', 'companion']);
    });

    test('sites are kept apart only where the last hop can, also of a group', () => {
      const more = {
        anon: 'socks5://a:1',
        named: 'socks5://me:w@a:1',
        placed: { kind: 'socks5', host: 'a', username: 'me-{site}', password: 'w' },
        long: { kind: 'socks5', host: 'a', username: `{site}${'x'.repeat(240)}`, password: 'w' },
        tor: 'tor://',
      };
      const isolated = (...chains: unknown[]) => told({ r: { chains, isolate: 'site' }, plain: [['squid']] }, more);
      expect(isolated(['anon'], ['placed'], ['squid', 'tor'])).toEqual([]);
      for (const [chain, why] of [
        [['anon', 'squid'], /last hop "squid" is http/],
        [['named'], /"named" has a user name of its own; write \{site\} in it/],
        [['long'], /"long" has a user name that is too long/],
        ['plain', /last hop "squid" is http/],
        ['companion', /own connection has no login/],
      ] as const)
        expect(isolated(['anon'], chain).join()).toMatch(why);
    });

    test('everything that a route may say', () => {
      const said = {
        chains: [['office'], ['squid']],
        pick: 'latency',
        tolerance: 20,
        private: true,
        floor: { privacy: 1 },
        check: { url: 'http://example.com' },
        unknown: 'proxy',
        refused: 'relay',
        buffer: '1MiB',
      };
      expect(read({ hops, routes: { r: said } }).routes['r']).toEqual({
        ...said,
        floor: { privacy: 1, hops: 0 },
        check: { url: 'http://example.com/', status: 204, every: 300, jitter: 30 },
        buffer: 1024 * 1024,
      });
    });

    test.each([
      [
        { chains: [['office']], pick: 'fast' },
        'pick: is not a way to choose a chain: order, latency, round-robin, sticky, race or auto',
      ],
      [{ chains: [['office']], tolerance: -1 }, 'tolerance: must be at least 0'],
      [{ chains: [['office']], floor: 1 }, 'floor: is not a floor: write it like { privacy: 1, hops: 2 }'],
      [{ chains: [['office']], floor: { privacy: -1 } }, 'floor/privacy: must be at least 0'],
      [
        { chains: [['office']], check: { url: 'ftp://a/' } },
        'check/url: is not an http or https URL like http://example.com/generate_204',
      ],
      [
        { chains: [['office']], check: { url: 'http://u:p@a/' } },
        'check/url: is not an http or https URL like http://example.com/generate_204',
      ],
      [{ chains: [['office']], check: {} }, 'check/url: needs url'],
      [
        { chains: [['office']], check: { url: 'http://a/', every: 5 } },
        'check: has a jitter that is not smaller than every',
      ],
      [{ chains: [['office']], unknown: 'me' }, 'unknown: is neither origin nor proxy'],
      [{ chains: [['office']], refused: 'never' }, 'refused: is neither next nor relay'],
      [{ chains: [['office']], buffer: '1GiB' }, 'buffer: is more than 16MiB'],
      [
        { chains: [1] },
        'chains/0: is not a chain: write the names of its hops in brackets, as in [office, squid], or the name of another route',
      ],
    ])('%j: %s', (route, fault) => {
      expect(told({ r: route })).toEqual([`routes/r/${fault}`]);
    });

    test('a group that is not there is told, also where a hop was meant', () => {
      expect(told({ work: ['rest', 'office', 'wrok', 'block'] })).toEqual([
        'routes/work/chains/0: names the route "rest", which does not exist',
        'routes/work/chains/1: names the route "office", which does not exist (a chain of the hop is written [office])',
        'routes/work/chains/2: names the route "wrok", which does not exist (did you mean work?)',
        'routes/work/chains/3: cannot have "block" for a group: it has no chains',
      ]);
    });

    test('groups that lead in a circle are told once, with the whole circle', () => {
      expect(told({ a: ['b'], b: [['office'], 'c'], c: ['a'], d: ['a'], e: ['e'] })).toEqual([
        'routes/c/chains/0: leads in a circle: a → b → c → a',
        'routes/e/chains/0: leads in a circle: e → e',
      ]);
    });

    test('at most four routes stand within one', () => {
      const four = { r4: [['office']], r3: ['r4'], r2: ['r3'], r1: ['r2'], r0: [['squid'], 'r1'] };
      expect(told(four)).toEqual([]);
      expect(told({ ...four, top: [['squid'], 'r0'], over: ['top'] })).toEqual([
        'routes/top/chains/1: leads through more than 4 routes within each other',
      ]);
    });

    test('a thousand routes within each other are an error, not a crash', () => {
      const long = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`r${i}`, [`r${i + 1}`]]));
      expect(told({ ...long, r20000: [['office']] })).toEqual([
        'routes/r19995/chains/0: leads through more than 4 routes within each other',
      ]);
      expect(told({ ...long, r20000: ['r0'] }).length).toBe(1);
    });

    test('with those of its groups, a route has at most 64 chains', () => {
      const many = Object.fromEntries(Array.from({ length: 70 }, (_, i) => [`h${i}`, `http://h${i}:1`]));
      const part = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => [`h${from + i}`]);
      const parts = { a: part(0, 32), b: part(28, 58), c: part(58, 60) };
      expect(told({ ...parts, all: ['a', 'b', 'c'] }, many)).toEqual([]);
      expect(told({ ...parts, all: ['a', 'b', 'c', ['h69']] }, many)).toEqual([
        'routes/all/chains/3: has more than 64 chains with those of its groups',
      ]);
      const wide = (from: number) => Array.from({ length: 32 }, (_, i) => `w${from + i}`);
      const level = (n: number, chains: unknown[]) => Object.fromEntries(wide(n).map(name => [name, chains]));
      const huge = { ...level(0, [['h0']]), ...level(32, wide(0)), ...level(64, wide(32)), top: wide(64) };
      expect(told(huge, many).length).toBe(32);
    });

    test('no chain stands below the floor: not by itself, not in a group, not for else or auto', () => {
      const floor = { privacy: 1, hops: 2 };
      expect(told({ r: { chains: [['office', 'squid'], ['office'], []], floor } })).toEqual([
        'routes/r/chains/1: is a chain that is below the floor: it has 1 hop, and at least 2 are asked for',
        'routes/r/chains/2: is a chain that is below the floor: it has 0 hops, and at least 2 are asked for',
      ]);
      expect(told({ r: { chains: ['g', 'companion'], floor }, g: [['office', 'squid'], ['squid']] })).toEqual([
        'routes/r/chains/0: holds the chain [squid], which is below the floor: it has 1 hop, and at least 2 are asked for',
        'routes/r/chains/1: holds the chain [], which is below the floor: it has 0 hops, and at least 2 are asked for',
      ]);
      expect(told({ r: { chains: [['office']], floor: { privacy: 2 } } })).toEqual([
        'routes/r/chains/0: is a chain that is below the floor: its privacy class is 1, and at least 2 is asked for',
      ]);
      expect(told({ r: { chains: [['office']], floor: { hops: 1 }, else: 'companion', pick: 'auto' } })).toEqual([
        'routes/r/pick: cannot be auto with a floor: the companion’s own connection is below it',
        'routes/r/else: cannot go with a floor: the companion’s own connection is below it',
      ]);
      expect(told({ r: { chains: ['g'], floor: { hops: 1 } }, g: { chains: [['office']], pick: 'auto' } })).toEqual([
        'routes/r/chains/0: holds the chain [], which is below the floor: it has 0 hops, and at least 1 are asked for',
      ]);
      expect(told({ r: { chains: [[]], floor: {}, else: 'companion' } })).toEqual([]);
    });
  });
});

describe('sites and rules', () => {
  test('short and long forms of a site say the same', () => {
    const { sites } = read({
      sites: {
        'a.example': 'companion',
        'b.example': { route: 'companion' },
        'c.example': 'off',
        'd.example': 'block',
      },
    });
    expect(sites['b.example']?.action).toEqual(sites['a.example']?.action);
    expect(sites['c.example']?.action).toEqual({ do: 'off' });
    expect(sites['d.example']?.action).toEqual({ do: 'block' });
  });

  test('two spellings of one site are refused, not left to their order', () => {
    expect(faults({ sites: { 'example.com': 'off', 'EXAMPLE.com': 'companion' } })).toEqual([
      'sites/EXAMPLE.com: is the same site as "example.com", which stands above it',
    ]);
    expect(faults({ sites: { 'example.com': 'off', '.example.com': 'off', '=example.com': 'off' } })).toEqual([]);
  });

  test('a star says what to write instead', () => {
    expect(faults({ sites: { '*.example.com': 'off' } })[0]).toContain('write .example.com for subdomains only');
  });

  test('a rule does exactly one thing', () => {
    const sentence = 'rules/0: needs exactly one of route, block and allow';
    expect(faults({ rules: [{ host: 'a.example' }] })).toEqual([sentence]);
    expect(faults({ rules: [{ host: 'a.example', block: true, allow: true }] })).toEqual([sentence]);
    expect(read({ rules: [{ host: '10.0.0.0/8', allow: true }] }).rules).toEqual([
      { matcher: { kind: 'cidr', address: '10.0.0.0', prefix: 8 }, action: { do: 'allow' }, rank: undefined },
    ]);
  });

  test(`more than ${MAX_HAND_WRITTEN} by hand belong in a list file`, () => {
    const sites = Object.fromEntries(Array.from({ length: MAX_HAND_WRITTEN }, (_, i) => [`h${i}.example`, 'off']));
    expect(faults({ sites })).toEqual([]);
    expect(faults({ sites, rules: [{ host: 'one.more', block: true }] })).toEqual([
      'sites: more than 5000 sites and rules by hand; put them in a list file',
    ]);
  });

  test.each([
    '\\\\server\\share\\hosts',
    '//server/share/hosts',
    'file:///etc/hosts',
    'FILE:hosts',
    'blob:x',
    'data:text/plain,x',
    'https://lists.example/x',
  ])('A57: a list and the log file are paths on this machine: not %s', file => {
    expect(faults({ lists: [{ file, block: true }] })).toEqual(['lists/0/file: is not a path on this machine']);
    expect(faults({ log: { file } })).toEqual(['log/file: is not a path on this machine']);
  });
});

describe('keys and values', () => {
  test('every unknown key is told, with the one that was meant', () => {
    expect(faults({ hopz: {}, lissten: 1, limits: { idletimeout: 3 }, zzzzzz: 1 })).toEqual([
      'limits/idletimeout: unknown key "idletimeout" (did you mean idleTimeout?)',
      'hopz: unknown key "hopz" (did you mean hops?)',
      'lissten: unknown key "lissten" (did you mean listen?)',
      'zzzzzz: unknown key "zzzzzz"',
    ]);
  });

  test('a list is no map and a map no list', () => {
    expect(faults({ hops: [], sites: ['a'], rules: {}, guard: [] })).toEqual([
      'hops: is not a map of hops',
      'sites: is not a map of sites',
      'rules: is not a list of rules',
      'guard: is not a map: write its keys below it, one a line',
    ]);
    for (const input of [null, [], 'text', 5]) {
      expect(faults(input)).toEqual([': is not a map of settings: write sections like hops:, routes: and sites:']);
    }
  });

  test.each([
    ['64MiB', 64 * 1024 * 1024],
    ['1.5 KiB', 1536],
    ['2MB', 2_000_000],
    [512, 512],
  ])('%s is a size', (memory, size) => {
    expect(read({ cache: { memory } }).cache.memory).toBe(size);
  });

  test.each([
    ['64MB/s', '"64MB/s" is not a size: write a number of bytes or, for example, 64MiB'],
    [-1, 'is negative'],
    [1.5, 'is not a whole number of bytes'],
  ])('%s is none', (memory, sentence) => {
    expect(faults({ cache: { memory } })).toEqual([`cache/memory: ${sentence}`]);
  });

  test.each([
    [[80, '443', '1024-65535'], []],
    [[0], ['guard/connectPorts/0: is not a port: ports go from 1 to 65535']],
    [['9-8'], ['guard/connectPorts/0: "9-8" is not a port or a range like 1024-65535']],
    [
      [70000, '1-2-3'],
      [
        'guard/connectPorts/0: is not a port: ports go from 1 to 65535',
        'guard/connectPorts/1: "1-2-3" is not a port or a range like 1024-65535',
      ],
    ],
  ])('connect ports %j', (connectPorts, expected) => {
    expect(faults({ guard: { connectPorts } })).toEqual(expected);
  });

  test('listening on any free port is said by port 0', () => {
    expect(read({ listen: '127.0.0.1:0' }).listen).toEqual({ host: '127.0.0.1', port: 0 });
    expect(faults({ listen: '127.0.0.1:70000' })).toEqual(['listen: "70000" is not a port: ports go from 1 to 65535']);
    expect(faults({ listen: 'localhost' })).toEqual(['listen: "localhost" is not host:port']);
  });
});

describe('dns', () => {
  test('names are asked of this system unless the file says otherwise', () => {
    expect(read({}).dns).toEqual({
      hosts: {},
      servers: [],
      https: null,
      route: 'companion',
      minTtl: 5,
      maxTtl: 3_600,
      serveStale: 3_600,
      lies: [],
    });
  });

  test.each([
    ['192.0.2.53', { host: '192.0.2.53', port: 53 }],
    ['192.0.2.53:5353', { host: '192.0.2.53', port: 5353 }],
    ['2001:db8::53', { host: '2001:db8::53', port: 53 }],
    ['[2001:db8::53]:5353', { host: '2001:db8::53', port: 5353 }],
  ])('%s is a server', (server, endpoint) => {
    expect(read({ dns: { servers: [server] } }).dns.servers).toEqual([endpoint]);
  });

  test.each([
    ['https://dns.test/dns-query', { host: 'dns.test', port: 443, path: '/dns-query' }],
    ['https://DNS.test:8443/q{?dns}', { host: 'dns.test', port: 8443, path: '/q' }],
    ['https://[2001:db8::53]/?x=1#part', { host: '2001:db8::53', port: 443, path: '/?x=1' }],
  ])('%s is a server over HTTPS', (https, expected) => {
    expect(read({ dns: { https } }).dns.https).toMatchObject(expected);
  });

  test.each([
    [
      { servers: ['dns.test'] },
      'dns/servers/0: "dns.test" is not an address, with or without a port: write it like 192.0.2.53',
    ],
    [
      { servers: ['192.0.2.53:0'] },
      'dns/servers/0: "192.0.2.53:0" is not an address, with or without a port: write it like 192.0.2.53',
    ],
    [{ servers: Array(9).fill('192.0.2.53') }, 'dns/servers: has more than 8 servers'],
    [{ https: 'http://dns.test/' }, 'dns/https: is not an https URL like https://dns.example/dns-query'],
    [{ https: 'https://me:s3cret@dns.test/' }, 'dns/https: is not an https URL like https://dns.example/dns-query'],
    [
      { servers: ['192.0.2.53'], https: 'https://dns.test/' },
      'dns: has both servers and https: names are asked of one or the other',
    ],
    [
      { route: 'compannion' },
      'dns/route: names the route "compannion", which does not exist (did you mean companion?)',
    ],
    [{ route: 'block' }, 'dns/route: leads nowhere: names could not be looked up'],
    [{ maxTtl: -1 }, 'dns/maxTtl: is negative'],
  ])('%j is refused', (dns, sentence) => {
    expect(faults({ dns })).toEqual([sentence]);
  });
});

test('the nearest word is a slip away or none', () => {
  expect(nearest('rotues', ['hops', 'routes'])).toBe('routes');
  expect(nearest('site', ['sites', 'lists'])).toBe('sites');
  expect(nearest('cat', ['dog', 'fish'])).toBeNull();
  expect(nearest('x'.repeat(10_000), ['hops'])).toBeNull();
});
