// The route editor in a real browser: from a proxy's URL to a page that came through it.
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { startHop } from '../support/hop.ts';
import { type BrowserOptions, eventually, type TestBrowser, type TestPage } from './browsers/browser.ts';
import { startJourney } from './journey.ts';
import { hostsBy } from './world.ts';

/** Types into a field of the settings page, over what stands there. */
async function fill(page: TestPage, name: string, text: string): Promise<void> {
  await eventually(`${name} is there`, () =>
    page.evaluate(wanted => {
      const input = document.querySelector<HTMLInputElement>(`[data-testid=${wanted}]`);
      input?.focus();
      input?.select();
      return input !== null;
    }, name),
  );
  await page.type(text);
}

async function press(page: TestPage, name: string): Promise<void> {
  await eventually(`${name} can be pressed`, () =>
    page.evaluate(
      wanted => document.querySelector<HTMLButtonElement>(`[data-testid=${wanted}]`)?.disabled === false,
      name,
    ),
  );
  await page.click(`[data-testid=${name}]`);
}

async function choose(page: TestPage, name: string, value: string): Promise<void> {
  await eventually(`${value} is offered`, () =>
    page.evaluate(
      (which, wanted) => {
        const select = document.querySelector<HTMLSelectElement>(`[data-testid=${which}]`);
        if (select === null || ![...select.options].some(option => option.value === wanted)) return false;
        select.value = wanted;
        select.dispatchEvent(new Event('change', { bubbles: true }));
        return true;
      },
      name,
      value,
    ),
  );
}

export function tellRouteEditor(start: (options: BrowserOptions) => Promise<TestBrowser>): void {
  test('a hop added by its URL is tested, put into a route and used; the file keeps its comments and its password', async () => {
    const credentials = { username: 'me', password: 's3cret-edit' };
    await using near = await startHop({ kind: 'http', hosts: hostsBy('squid') });
    await using far = await startHop({ kind: 'socks5', credentials, hosts: hostsBy('dante') });
    await using journey = await startJourney(start, {
      hops: `  near: http://127.0.0.1:${near.port} # on this table\n`,
      routes: '  work: [[near]] # the only one\n',
      sites: '  third.test: work\n',
    });
    const { world, browser, companion, pictures } = journey;
    const page = await browser.newPage();
    await journey.pairAndUse(page);
    const options = await browser.newPage();
    await options.goto(`${browser.extensionOrigin}/options.html`);
    const says = (what: string, pattern: RegExp) =>
      eventually(what, async () => pattern.test(await options.evaluate(() => document.body.innerText)));

    await fill(options, 'new-hop', `socks5://me:s3cret-edit@127.0.0.1:${far.port}`);
    await fill(options, 'new-hop-name', 'far');
    await press(options, 'add-hop');
    await eventually('the file has the hop', () =>
      readFileSync(companion.configFile, 'utf8').includes(`  far: socks5://me:s3cret-edit@127.0.0.1:${far.port}\n`),
    );
    await press(options, 'edit-work');
    await choose(options, 'add-hop-work-1', 'far');
    await eventually('the file has the chain', () =>
      readFileSync(companion.configFile, 'utf8').includes('  work: [[near, far]] # the only one\n'),
    );
    expect(readFileSync(companion.configFile, 'utf8')).toContain('# on this table\n');

    await fill(options, 'check-url', world.url('fourth.test', '/check'));
    await press(options, 'test-work');
    await says('the test has worked', /near → far\s+answered 200/);
    expect(world.of('fourth.test').map(request => [request.path, request.way])).toEqual([['/check', 'dante']]);
    await options.screenshot(pictures('route-editor'));
    expect(await options.evaluate(() => document.documentElement.outerHTML)).not.toContain('s3cret-edit');

    expect(await page.goto(world.url('third.test', '/used'))).toBeNull();
    expect(world.of('third.test').map(request => request.way)).toEqual(['dante']);
    expect((await companion.exchanges()).at(-1)?.attempts.at(-1)?.chain).toEqual(['near', 'far']);

    // Another hand changes the file: the page shows what it says now, and that it does.
    const text = readFileSync(companion.configFile, 'utf8');
    writeFileSync(companion.configFile, text.replace('routes:\n', 'routes:\n  theirs: [[far]]\n'));
    await says('their route is shown', /changed elsewhere[^]*theirs/);
  });
}
