// npm's proxy-chain as it comes, without logs. `node chain-proxy.ts PORT [PARENTURL]`
import { Server } from 'proxy-chain';

const [port, parent] = process.argv.slice(2);
const server = new Server({
  port: Number(port),
  host: '127.0.0.1',
  verbose: false,
  ...(parent !== undefined && {
    prepareRequestFunction: () => ({ upstreamProxyUrl: parent }),
  }),
});
server.on('requestFailed', () => {});
await server.listen();
