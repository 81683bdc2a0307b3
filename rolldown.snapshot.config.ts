// What the start snapshot is made of (companion/snapshot): one file, for a snapshot can load no other. Its text stays in memory as long as the companion
// runs, so it has no comments, and no character that would make each of the others take two bytes.
import { join } from 'node:path';
import { defineConfig } from 'rolldown';
import bundle from './rolldown.config.ts';

export default defineConfig({
  ...bundle[0],
  input: { snapshot: 'companion/snapshot/snapshot.ts' },
  resolve: { alias: { 'node:crypto': join(import.meta.dirname, 'companion/snapshot/crypto.ts') } },
  plugins: [
    {
      name: 'one byte a character',
      generateBundle(_options, files) {
        for (const file of Object.values(files)) {
          if (file.type !== 'chunk') continue;
          file.code = file.code.replaceAll(
            /[^\0-\xff]/g,
            unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
          );
        }
      },
    },
  ],
  output: {
    dir: '.output/companion',
    format: 'cjs',
    entryFileNames: '[name].cjs',
    codeSplitting: false,
    // Names stay: they are what a stack says.
    minify: { compress: false, mangle: false, codegen: { removeWhitespace: true } },
  },
});
