// The stories in real Chromium.
import { describe } from 'vitest';
import { CHROMIUM, startChromium } from './browsers/chromium.ts';
import { tellStories } from './stories.ts';

describe.skipIf(!CHROMIUM)('in Chromium', () => {
  tellStories(startChromium);
});
