// What a page's policy has to name so that its own style counts (CSP level 3, hash sources).
import { createHash } from 'node:crypto';

/** `'sha256-…'` of the page's only style element. */
export function hashOfStyle(page: string): string {
  const [, style] = /<style>([^]*?)<\/style>/.exec(page)!;
  return `'sha256-${createHash('sha256').update(style!).digest('base64')}'`;
}
