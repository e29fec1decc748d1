import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SHIPPED = fileURLToPath(new URL("../../src/conure/page/", import.meta.url));

function files(folder: string): Record<string, Buffer> {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(names.map(({ parentPath, name }) => join(parentPath, name)).map((path) => [path.slice(folder.length), readFileSync(path)]));
}

test("what is shipped was built from these sources: `make page` builds it anew", () => {
  const folder = join(mkdtempSync(join(tmpdir(), "page-")), "/");
  execFileSync("npx", ["vite", "build", "--logLevel", "error", "--outDir", folder, "--emptyOutDir"], { cwd: ROOT, env: { ...process.env, NODE_ENV: "production" } });
  expect(files(folder)).toEqual(files(SHIPPED));
  rmSync(folder, { recursive: true });
});

test("it is small", () => {
  const bytes = Object.values(files(SHIPPED)).reduce((sum, each) => sum + gzipSync(each).length, 0);
  expect(bytes).toBeLessThan(55_000);
});
