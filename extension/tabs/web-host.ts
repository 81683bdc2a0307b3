// The host of a page, where it is a page of the web: the one thing that is asked of a tab's URL in several places.

/** Whether this is a page (or a request) of the web, rather than of the browser, an extension or a file. */
export const isWeb = (url: string | undefined) => url !== undefined && /^(https?|wss?):/.test(url);

/** The host of a web page's URL, without a trailing dot; empty for any other. */
export function hostOf(url: string | undefined): string {
  if (!isWeb(url)) return '';
  try {
    return new URL(url!).hostname.replace(/\.$/, '');
  } catch {
    return '';
  }
}
