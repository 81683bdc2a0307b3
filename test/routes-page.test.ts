// Holds the examples of docs/routes.md to the schema.
import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { ConfigSchema } from '../shared/config.ts';

const page = readFileSync('docs/routes.md', 'utf8');
const NAMES = ['office', 'squid', 'a', 'b', 'c', 'paris', 'berlin', 'newyork', 'vpn', 'tor'];
const hops = Object.fromEntries(NAMES.map((name, i) => [name, `http://proxy.example:${i + 1}`]));

test('every example on the page is in order, and every pick has one', () => {
  const examples = [...page.matchAll(/^```yaml\n([^]*?)^```$/gm)].map(([, text]) => parse(text!) as { routes: object });
  expect(examples.length).toBeGreaterThan(3);
  const picks = new Set<string>();
  for (const { routes } of examples) {
    const config = v.parse(ConfigSchema, { hops, routes });
    for (const { pick } of Object.values(config.routes)) picks.add(pick);
  }
  expect([...picks].toSorted()).toEqual(['auto', 'latency', 'order', 'race', 'round-robin', 'sticky']);
});
