// The file as it is written on the first start: every section, explained, and nothing turned on.

export const DEFAULT_CONFIG_TEXT = `# Detour: which sites are steered, and how they are reached.
# The popup writes here too, and changes only the lines it must; what you write by hand is picked up at once.
# An edit that is not in order is refused with its line, and the last good file stays in force.

# Where the companion listens. Browsers and other programs on this machine use it as their proxy.
# listen: 127.0.0.1:8228

# Hops: upstream proxies, one each: http, https, socks4a, socks5, ssh, tor. A URL, or the long form. Passwords stay in this file (its mode is 0600),
# or are told by a file, the environment or a program.
hops:
  # office: socks5://me:s3cret@gw.example:1080
  # squid: http://proxy.example:3128
  # tor: tor://127.0.0.1:9050
  # sec: { kind: https, host: proxy.example, username: me, password: { command: [pass, show, office] } }

# Routes: named ways out. Chains are tried in order until one works; a chain lists its hops in order.
# A route is closed: when all its chains fail, the request fails. With "else: companion" it goes on without them.
# Built in: companion (this machine connects by itself) and block. How else a chain is picked: pick: latency, round-robin, sticky, race or auto.
routes:
  # work: [[office], [squid, tor]]
  # fast: { chains: [[squid]], else: companion }
  # all: { chains: [work, [squid]], pick: sticky }   # every site keeps the chain that it began with; work stands for its chains

# Sites: what is steered. example.com takes its subdomains along, .example.com means its subdomains only,
# =example.com that host only. The value is a route, or off (not steered). A bare * is not a wildcard here.
sites:
  # example.com: work
  # static.example.com: off
  # wiki.example.org: { route: companion, cache: off, filter: off }
  # nas.example: { route: companion, local: true }   # its pages may reach this machine and its network

# Rules: block a host, let one through that a list blocks, or route by address range.
rules:
  # - { host: ads.example, block: true }
  # - { host: good.ads.example, allow: true }
  # - { host: 198.51.100.0/24, route: work }
  # - { keyword: tracker, time: "Mon-Fri 08:00-18:00", block: true }   # also regex, port and path

# Lists: files with one host a line, beside this one, or fetched from a url. For anything large. Other formats: autoproxy, switchy, clash, v2fly.
lists:
  # - { file: work-hosts.txt, route: work }
  # - { file: blocked-hosts.txt, block: true }
  # - { url: https://lists.example/gfwlist.txt, format: autoproxy, route: work, via: work }

# The route of requests that no rule names.
# default: companion

# Guard: what may be reached. Private addresses only where they are allowed here; CONNECT to these ports only.
# And who may come: with users, the proxy asks for a name and a password. (Other machines: see the README.)
# guard:
#   users: { ann: a-long-password }
#   allow: [192.168.1.0/24]
#   connectPorts: [80, 443, 1024-65535]

# Names that this machine resolves by itself (behind hops, the last hop does): addresses written here; else the system is asked, or these
# servers (servers: [192.0.2.53]), or a server over HTTPS, reached by a route.
# dns: { hosts: { printer.example: 192.168.1.9 }, https: "https://dns.example/dns-query", route: companion }

# cache: { memory: 64MiB, disk: 1GiB }

# A path turns on a log of requests, one JSON line each, without passwords.
# log: { file: null }

# limits: { connections: 4096, hopTimeout: 5, routeTimeout: 20 }
`;
