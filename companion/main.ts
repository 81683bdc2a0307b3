#!/usr/bin/env -S node --max-semi-space-size=8 --single-threaded-gc
// `detour`: what it is asked for is in cli/run.ts.
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { runProgram } from './cli/program.ts';

// Compiled code is kept beside the program (whoever can write there can change the program), so that the next start need not compile it.
if (import.meta.filename.endsWith('js')) enableCompileCache(join(import.meta.dirname, '.compiled'));

runProgram(() => import('./cli/run.ts'));
