// Builds a component: node build.mjs OUT.wasm [handler]. Without the second argument it is a
// moderator; a `handler` answers HTTP requests itself.

import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { componentize } from '@bytecodealliance/componentize-js';

const [out, worldName = 'moderator'] = process.argv.slice(2);
if (out === undefined || !['moderator', 'handler'].includes(worldName)) {
  console.error('expected a path and optionally a world: node build.mjs OUT.wasm [handler]');
  process.exit(2);
}
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
// The version of WASI that the JavaScript engine was built for; hosts of later versions accept
// both.
const WASI = '0.2.10';

const isHandler = worldName === 'handler';
const moderator = await readFile(here('moderate.js'), 'utf8');
const source = isHandler
  ? moderator.replace('export const moderation', 'const moderation') + (await readFile(here('handler.js'), 'utf8'))
  : moderator;
const folder = await mkdtemp(join(tmpdir(), 'moderate-js-'));
try {
  const sourcePath = join(folder, 'moderate.js');
  await writeFile(sourcePath, source);
  const witPath = join(folder, 'wit');
  await cp(here('../../wit'), witPath, { recursive: true });
  for (const file of ['infer.wit', ...['cli', 'clocks', 'http', 'io', 'random'].map((name) => `deps/${name}/${name}.wit`)]) {
    const path = join(witPath, file);
    await writeFile(path, (await readFile(path, 'utf8')).replaceAll('@0.2.12', `@${WASI}`));
  }
  const { component, imports: imported } = await componentize({
    sourcePath,
    witPath,
    worldName,
    // A moderator's world has none of these interfaces.
    disableFeatures: isHandler ? [] : ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
  });
  await writeFile(out, component);
  const names = [...new Set(imported.map(([name]) => name))].join(' ');
  console.log(`${out}: ${Math.ceil(component.length / 1024)} KiB, imports ${names}`);
} finally {
  await rm(folder, { recursive: true });
}
