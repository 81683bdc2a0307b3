// How the companion becomes a few files that start fast: everything but Node's own modules is bundled in, and what a start does not need stands apart.
// CommonJS, because Node links and wraps its own modules for ES modules one by one: 20 ms of a start (seen in Node 24).
import { defineConfig } from 'rolldown';

export default defineConfig([
  {
    input: {
      detour: 'companion/main.ts',
      'owner-reader': 'companion/guard/owner-reader.ts',
    },
    platform: 'node',
    // ws would otherwise look for two native helpers that we do not ship.
    transform: {
      target: 'node22.19',
      define: { 'process.env.WS_NO_BUFFER_UTIL': '"1"', 'process.env.WS_NO_UTF_8_VALIDATE': '"1"' },
    },
    output: {
      dir: '.output/companion',
      format: 'cjs',
      entryFileNames: '[name].cjs',
      chunkFileNames: '[name].cjs',
      sourcemap: true,
      cleanDir: true,
      legalComments: 'inline',
      codeSplitting: {
        groups: [
          { name: 'ws', test: /node_modules[\\/]ws[\\/]/ },
          { name: 'shared', test: /companion[\\/]control[\\/]state-folder|[\\/]shared[\\/]|node_modules[\\/]valibot/ },
        ],
      },
    },
  },
  // By itself: what this thread shares with the rest would else be one more file for every start to read.
  {
    input: { 'disk-writer': 'companion/cache/disk-writer.ts' },
    platform: 'node',
    transform: { target: 'node22.19' },
    output: {
      dir: '.output/companion',
      format: 'cjs',
      entryFileNames: '[name].cjs',
      sourcemap: true,
      cleanDir: false,
      legalComments: 'inline',
    },
  },
  // By itself too: only who has an ssh hop loads it, and it is large.
  {
    input: { 'ssh-library': 'companion/chain/ssh-library.ts' },
    platform: 'node',
    // Native helpers that are not built here: it does without them.
    external: [/\.node$/, 'cpu-features'],
    transform: { target: 'node22.19' },
    output: {
      dir: '.output/companion',
      format: 'cjs',
      entryFileNames: '[name].cjs',
      sourcemap: true,
      cleanDir: false,
      legalComments: 'inline',
    },
  },
]);
