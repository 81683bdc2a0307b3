// `npm run dev [firefox]`: a real browser with the built extension, paired to a live companion, on a web of its own to click around in.
// Ends with the browser's window, or with Ctrl-C.
import { FIREFOX, startFirefox } from './journeys/browsers/firefox.ts';
import { CHROMIUM, startChromium } from './journeys/browsers/chromium.ts';
import { startJourney } from './journeys/journey.ts';

const wanted = process.argv[2] ?? (CHROMIUM ? 'chromium' : 'firefox');
if (wanted !== 'chromium' && wanted !== 'firefox') {
  console.error(`dev: "${wanted}" is not a browser that this knows: chromium or firefox`);
  process.exit(1);
}
if (!(wanted === 'chromium' ? CHROMIUM : FIREFOX)) {
  console.error(`dev: ${wanted} is not on this machine`);
  process.exit(1);
}
const visible = Boolean(
  process.env.DISPLAY || process.env.WAYLAND_DISPLAY || process.platform === 'darwin' || process.platform === 'win32',
);
if (!visible) console.log('dev: there is no display here, so the browser runs without a window');

const stop = new Promise<void>(resolve => {
  process.once('SIGINT', resolve);
  process.once('SIGTERM', resolve);
});
console.log(`dev: starting ${wanted}, a companion and a small web …`);
await using journey = await startJourney(wanted === 'chromium' ? startChromium : startFirefox, {}, { visible });
const page = await journey.browser.newPage();
await journey.pairAndUse(page);
await page.goto(journey.world.url('site.test'));
console.log(`dev: paired. The file is ${journey.companion.configFile}; edit it and watch.`);
console.log(
  `dev: sites to try: ${journey.world.url('site.test')} ${journey.world.secureUrl('site.test')} ${journey.world.url('other.test')}`,
);
console.log('dev: Ctrl-C ends it.');
await stop;
