// Runs inside the companion that is soaked (`node --import`), so that the product needs nothing for it: every second, after a full collection, it
// says on descriptor 3 what memory and which handles there are. It holds nothing alive.
import { writeSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import { collect } from '../support/collect.ts';

// A worker process inherits the flag, but has another descriptor 3; a thread has the same, and nothing to say.
if (process.send === undefined && isMainThread) setInterval(look, 1_000).unref();

function look(): void {
  collect();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  const handles: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) handles[kind] = (handles[kind] ?? 0) + 1;
  const { user, system } = process.cpuUsage();
  const line = { rss, heapUsed, external, arrayBuffers, handles, cpu: (user + system) / 1000 };
  try {
    writeSync(3, `${JSON.stringify(line)}\n`);
  } catch {
    // Nobody listens any more.
  }
}
