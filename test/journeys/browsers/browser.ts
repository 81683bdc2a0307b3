// What a journey asks of a browser, so that one journey runs in both. The drivers are chromium.ts and firefox.ts.

export interface TestPage {
  /** Goes there and waits for the load; the browser's own error text when it fails, null when it loaded. */
  goto(url: string): Promise<string | null>;
  /** Runs a function in the page; arguments and result are JSON. */
  evaluate<R, A extends unknown[]>(fn: (...args: A) => R | Promise<R>, ...args: A): Promise<R>;
  /** Clicks the first match with a real pointer event. */
  click(selector: string): Promise<void>;
  /** Types into the focused element. */
  type(text: string): Promise<void>;
  /** Presses one key: `Enter`, `Tab`, ` `. */
  press(key: string): Promise<void>;
  screenshot(file: string): Promise<void>;
  /** Shows itself in light or dark colours, where the driver can ask for it. */
  prefer?(scheme: 'light' | 'dark'): Promise<void>;
  /** Runs a whole script, whatever the page's own policy allows, where the driver can. */
  run?(script: string): Promise<void>;
  close(): Promise<void>;
}

export interface TestBrowser extends AsyncDisposable {
  readonly name: 'chromium' | 'firefox';
  /** `chrome-extension://…` or `moz-extension://…`. */
  readonly extensionOrigin: string;
  /** A new tab. */
  newPage(): Promise<TestPage>;
  /** The popup opened as a tab of its own, speaking of `page`. */
  popupFor(page: TestPage): Promise<TestPage>;
  /** The browser's real popup over `page`: pictured into `file`; its size in CSS pixels. */
  pictureRealPopup(page: TestPage, file: string): Promise<{ width: number; height: number }>;
  /** The icon's title for `page`: what a person reads when pointing at it. */
  iconTitle(page: TestPage): Promise<string>;
  /** Installs another extension from a folder; gives back its origin. */
  installOther(folder: string): Promise<string>;
  /** Puts the extension's worker to sleep where it has one that can sleep. */
  sleepWorker(): Promise<void>;
  /** Forgets what it has cached itself. */
  clearCache(): Promise<void>;
  /** What the browser said of itself so far, for failures. */
  log(): string;
  /** Ends the browser but keeps its profile, and starts it again with it. */
  restart(whileDown?: () => Promise<void>): Promise<void>;
}

export interface BrowserOptions {
  /** Names that resolve to loopback without any proxy: unsteered sites. */
  readonly directNames: readonly string[];
  /** PEM of an authority that the browser trusts. */
  readonly authority: string;
  /** Firefox: let the extension into private windows. */
  readonly privateWindows?: boolean;
  /** Chromium: more of its command line, looked at again at every start. */
  readonly args?: readonly string[];
  /** Chromium: a command that runs the rest of its line, and becomes it. */
  readonly within?: readonly string[];
  readonly prefs?: Record<string, string | number | boolean>;
  /** A window that a person can see and use. */
  readonly visible?: boolean;
}

/** Asks again until the answer is truthy; the last answer or error is named when time is up. */
export async function eventually<T>(what: string, ask: () => T | Promise<T>, within = 10_000): Promise<NonNullable<T>> {
  const until = Date.now() + within;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer as NonNullable<T>;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > until)
      throw new Error(
        `not within ${within} ms: ${what} (last: ${last instanceof Error ? last.message : JSON.stringify(last)})`,
      );
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}
