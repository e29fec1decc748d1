/** Runs the examples of the README. */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { beforeAll, expect, inject, test } from "vitest";
import { serve } from "./server.js";
import { SAID, WAV } from "./speech.js";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const DIST = join(HERE, "dist");
const KINDS: Record<string, string> = { js: "text/javascript", html: "text/html" };

function example(language: string): string {
  const found = new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, "s").exec(readFileSync(join(HERE, "README.md"), "utf8"));
  return found![1]!;
}

beforeAll(() => void execFileSync("npm", ["run", "build"], { cwd: HERE }));

test("in Node", () => {
  const folder = mkdtempSync(join(tmpdir(), "conure-"));
  mkdirSync(join(folder, "node_modules", "@conure"), { recursive: true });
  symlinkSync(HERE, join(folder, "node_modules", "@conure", "client"));
  writeFileSync(join(folder, "talk.wav"), WAV);
  writeFileSync(join(folder, "example.mjs"), example("js").replace("http://localhost:8000", inject("url")));
  const told = execFileSync(process.execPath, ["example.mjs"], { cwd: folder, encoding: "utf8" }).trim().split("\n");
  expect(told[0]).toBe(SAID);
  expect(told.slice(1).map((line) => line.replace(/^[\d.]+ /, "")).join(" ").trim()).toBe(SAID);
});

test("in a browser", async () => {
  const folder = mkdtempSync(join(tmpdir(), "conure-"));
  cpSync(DIST, join(folder, "client"), { recursive: true });
  const files = createServer((request, answer) => {
    const path = request.url === "/" ? "/index.html" : request.url!;
    answer.setHeader("Content-Type", KINDS[path.split(".").at(-1)!] ?? "text/plain");
    try {
      answer.end(readFileSync(join(folder, path)));
    } catch {
      answer.writeHead(404).end();
    }
  }).listen(0, "127.0.0.1");
  await once(files, "listening");
  const origin = `http://127.0.0.1:${(files.address() as AddressInfo).port}`;
  const server = await serve("free", "--cors", origin);
  writeFileSync(join(folder, "index.html"), example("html").replace("http://localhost:8000", server.url));
  const speech = fileURLToPath(new URL("../../../tests/conformance/speech.wav", import.meta.url));
  const flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", `--use-file-for-fake-audio-capture=${speech}%noloop`];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", ...flags] });
  const page = await browser.newPage();
  await page.goto(origin);
  await expect.poll(async () => (await page.locator("#said").textContent())?.trim()).toBe(SAID);
  await browser.close();
  await server.kill("SIGTERM");
  files.close();
});
