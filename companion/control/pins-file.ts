// The pins of routes, from one run to the next: a file of the state folder, read at the start and written with every change.
import * as v from 'valibot';
import { readStateFile, writeStateFile } from './state-folder.ts';

const FILE = 'pins.json';

const SavedPin = v.strictObject({ route: v.string(), chain: v.string(), until: v.nullable(v.number()) });
const SavedPins = v.strictObject({ version: v.literal(1), pins: v.array(SavedPin) });
type SavedPin = v.InferOutput<typeof SavedPin>;

/** The pins of the last run; a file that cannot be read is as good as none, which `warn` hears. */
export function readPins(folder: string, warn: (message: string) => void): readonly SavedPin[] {
  try {
    const text = readStateFile(folder, FILE, warn);
    return text === null ? [] : v.parse(SavedPins, JSON.parse(text)).pins;
  } catch {
    warn(`${folder}/${FILE} cannot be read, so no route is pinned any more.`);
    return [];
  }
}

/** Keeps the pins that there are now; where that fails they hold until the companion ends, which `warn` hears. */
export function writePins(folder: string, pins: readonly SavedPin[], warn: (message: string) => void): void {
  try {
    writeStateFile(folder, FILE, `${JSON.stringify({ version: 1, pins })}\n`);
  } catch (error) {
    warn(`Pins of routes cannot be kept: ${(error as Error).message}`);
  }
}
