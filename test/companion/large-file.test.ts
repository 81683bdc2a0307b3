// A small edition of `node test/bench/large-file.ts`: that it is right. How long it takes is measured there.
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { TOKEN_PREFIX } from '../../shared/control.ts';
import { largeConfig, writeLists } from '../support/large-file.ts';
import { cliToken, makePlace, startTestCompanion, TEST_CONFIG, TestLink } from '../support/with-companion.ts';

test('500 chains and 8,000 rules in lists of several formats decide, name their lines, and are read again beside traffic', async () => {
  using place = makePlace(largeConfig(500, TEST_CONFIG));
  const hosts = writeLists(place.folder, 8_000);
  await using running = await startTestCompanion(undefined, place);
  await using link = await TestLink.open(running.port, TOKEN_PREFIX + cliToken(running));
  const decisionOf = async (host: string) => {
    const reply = await link.ask({ type: 'explain', url: `http://${host}/` });
    if (reply.type !== 'explained') throw new Error(JSON.stringify(reply));
    return reply.explanation.decision;
  };
  for (const i of [0, 1_999, 2_000, 3_999, 4_000, 5_999, 6_000, 7_999]) {
    const list = Math.floor(i / 2_000);
    expect(await decisionOf(`www.${hosts[i]}`)).toMatchObject({
      route: list === 1 ? 'block' : `route${list}`,
      because: { rule: `lists[${list}]`, line: (i % 2_000) + (list === 3 ? 2 : 1) },
    });
  }
  expect((await (await fetch(running.companion.pacUrl)).text()).length).toBeGreaterThan(8_000 * 5);

  const others = writeLists(place.folder, 8_000, 2);
  writeFileSync(place.configFile, largeConfig(500, `${TEST_CONFIG}sites:\n  new.test: block\n`));
  await link.until(
    heard => heard.type === 'state' && heard.state.sites.some(({ site }) => site === 'new.test'),
    15_000,
  );
  await expect.poll(() => decisionOf(others[7_999]!), { timeout: 15_000 }).toMatchObject({ route: 'route3' });
  expect((await decisionOf(hosts[0]!)).steered).toBe(others.includes(hosts[0]!));
});
