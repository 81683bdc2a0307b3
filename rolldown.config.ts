// How the companion becomes one file that starts fast: everything but Node's own modules is bundled in.
import { defineConfig } from 'rolldown';

export default defineConfig({
  input: { detour: 'companion/main.ts' },
  platform: 'node',
  // ws would otherwise look for two native helpers that we do not ship.
  transform: {
    target: 'node22.19',
    define: { 'process.env.WS_NO_BUFFER_UTIL': '"1"', 'process.env.WS_NO_UTF_8_VALIDATE': '"1"' },
  },
  output: { dir: '.output/companion', format: 'esm', sourcemap: true, cleanDir: true, legalComments: 'inline' },
});
