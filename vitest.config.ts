// Which tests there are: pure and companion tests, the extension on WXT's in-memory browser, and the journeys through real browsers.
import { defineConfig } from 'vitest/config';
import { WxtVitest } from 'wxt/testing/vitest-plugin';

const SECOND = 1_000;

export default defineConfig({
  test: {
    globals: false,
    teardownTimeout: 20 * SECOND,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/*.test.ts', 'test/{shared,companion,conformance,bench}/**/*.test.ts'],
          testTimeout: 60 * SECOND,
          hookTimeout: 60 * SECOND,
        },
      },
      {
        // Where this Node does not let us have lean sockets (companion/sockets/lean-socket.ts), its own must serve.
        test: {
          name: 'node-sockets',
          include: ['test/companion/{bytes,proxy}.test.ts', 'test/companion/downstream/listener.test.ts'],
          env: { DETOUR_SOCKETS: 'node' },
          testTimeout: 60 * SECOND,
          hookTimeout: 60 * SECOND,
        },
      },
      {
        plugins: [WxtVitest()],
        oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
        test: {
          name: 'extension',
          include: ['test/extension/**/*.test.{ts,tsx}'],
          testTimeout: 10 * SECOND,
          hookTimeout: 10 * SECOND,
        },
      },
      {
        // Leaks, by the packets on the wire.
        test: {
          name: 'namespaces',
          include: ['test/namespaces/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 60 * SECOND,
          hookTimeout: 60 * SECOND,
        },
      },
      {
        test: {
          name: 'journeys',
          include: ['test/journeys/**/*.test.ts'],
          // Two browsers and their proxies at once would measure the machine's two cores, not Detour.
          fileParallelism: false,
          testTimeout: 90 * SECOND,
          hookTimeout: 60 * SECOND,
        },
      },
    ],
  },
});
