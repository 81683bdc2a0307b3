// The stories in real Firefox.
import { describe } from 'vitest';
import { FIREFOX, startFirefox } from './browsers/firefox.ts';
import { tellStories } from './stories.ts';

describe.skipIf(!FIREFOX)('in Firefox', () => {
  tellStories(startFirefox);
});
