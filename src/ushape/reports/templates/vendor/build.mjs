// plot.mjs -> plot.js, one file that needs nothing else, and LICENSES.txt of all that is in it.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const { metafile } = await build({
  entryPoints: ["plot.mjs"],
  outfile: "plot.js",
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plot",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
});

const packageOf = (file) => file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1];
const bundled = Object.entries(metafile.outputs["plot.js"].inputs)
  .filter(([, input]) => input.bytesInOutput > 0)
  .map(([file]) => packageOf(file));

const licenceOf = (name) => {
  const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version} (${license})\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8")}`;
};

const names = [...new Set(bundled)].filter(Boolean).sort();
writeFileSync("LICENSES.txt", names.map(licenceOf).join(`\n${"-".repeat(80)}\n\n`));
