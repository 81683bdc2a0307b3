// `detour env`: for a shell's eval, and for anything that takes a PAC.
import { formatEndpoint } from '../../shared/endpoint.ts';
import type { ControlLink } from './ask.ts';

export async function printEnv(link: ControlLink): Promise<number> {
  const at = `http://${formatEndpoint(link.hello.proxy)}`;
  const names = ['http_proxy', 'https_proxy', 'all_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'];
  const none = 'localhost,127.0.0.1,::1';
  process.stdout.write(
    `# eval "$(detour env)" sends this shell's programs through Detour.\n${names.map(name => `export ${name}=${at}\n`).join('')}` +
      `export no_proxy=${none}\nexport NO_PROXY=${none}\n# PAC (the address is the secret): ${link.hello.pacUrl}\n`,
  );
  link.close();
  return 0;
}
