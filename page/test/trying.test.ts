/** For those who meet Conure first: what the small models know, a sample, and the same from programs. */

import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { expect, inject, test } from "vitest";
import { serve } from "../../clients/typescript/test/server.js";
import { open } from "./browser.js";

const url = inject("url");
const LONG = { timeout: 45_000 };
const PYTHON = process.env.CONURE_PYTHON ?? "python3";
const run = promisify(execFile);

/** Copies the programs as users do, and runs them. */
async function outputs(page: Page, env: NodeJS.ProcessEnv): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "recipes-"));
  const found: string[] = [];
  await page.getByText("The same from curl, Python or JavaScript").click();
  for (const [name, command, flags] of [["curl", "sh", ["-c"]], ["Python", PYTHON, ["-c"]], ["JavaScript", process.execPath, ["--input-type=module", "-e"]]] as const) {
    await page.getByRole("button", { name: `Copy for ${name}` }).click();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    const { stdout } = await run(command, [...flags, text], { cwd: folder, env: { ...process.env, ...env } });
    found.push(stdout);
  }
  rmSync(folder, { recursive: true });
  return found;
}

test("the sample is played, transcribed, and transcribed by programs", async () => {
  const { page, faults, close } = await open(`${url}/#files`);
  const line = page.locator(".files").getByText("knows digits and a few commands");
  await line.waitFor(LONG);
  await page.locator(".files").getByText("conure serve --model parakeet-tdt-0.6b-v3").waitFor();
  const sound = page.getByLabel("Play the sample");
  await sound.evaluate((audio: HTMLAudioElement) => audio.play());
  await expect.poll(() => sound.evaluate((audio: HTMLAudioElement) => audio.currentTime), LONG).toBeGreaterThan(0);
  await sound.evaluate((audio: HTMLAudioElement) => audio.pause());
  await page.getByRole("button", { name: "Transcribe it" }).click();
  const card = page.getByRole("article", { name: "digits.flac" });
  await card.getByRole("button", { name: "Play" }).waitFor(LONG);
  const said = (await card.locator(".utterance > p").allTextContents()).join(" ");
  expect(said.split(" ").length).toBeGreaterThan(4);
  const [curl, python, script] = await outputs(page, {});
  expect((JSON.parse(curl!) as { text: string }).text).toBe(said);
  expect([python!.trim(), script!.trim()]).toEqual([said, said]);
  expect(faults).toEqual([]);
  await close();
});

test("with a key the programs take it from the environment", async () => {
  const folder = mkdtempSync(join(tmpdir(), "keys-"));
  const keys = ["--keys", join(folder, "keys.json")];
  const secret = /cnr_\S+/.exec(execFileSync(PYTHON, ["-m", "conure", "keys", "add", "page", ...keys], { encoding: "utf8" }))![0];
  const locked = await serve("free", ...keys);
  const { page, close } = await open(`${locked.url}/#files`);
  const field = page.getByRole("dialog").getByLabel("Key");
  await field.fill(secret);
  await field.press("Enter");
  const found = await outputs(page, { CONURE_KEY: secret });
  expect(await page.content()).not.toContain(secret);
  for (const text of found) expect(text).toMatch(/seven|eight|nine|zero|one|two|three|four|five|six/);
  await close();
  await locked.kill("SIGTERM");
  rmSync(folder, { recursive: true });
});

test("a real model has a real sample, and no line about digits", async () => {
  const { page, close } = await open(url);
  await page.locator(".live").getByText("knows digits and a few commands").waitFor(LONG);
  await page.route("**/health", async (route) => {
    const answer = await route.fetch();
    const told = (await answer.json()) as { models: { name: string }[] };
    for (const model of told.models) model.name = "parakeet-tdt-0.6b-v3";
    await route.fulfill({ response: answer, json: told });
  });
  await page.goto(`${url}/#files`);
  await page.reload();
  await page.getByText("John F. Kennedy in 1961").waitFor(LONG);
  expect(await page.getByText("knows digits and a few commands").count()).toBe(0);
  const sound = page.getByLabel("Play the sample");
  await sound.evaluate((audio: HTMLAudioElement) => audio.play());
  await expect.poll(() => sound.evaluate((audio: HTMLAudioElement) => audio.currentTime), LONG).toBeGreaterThan(0);
  await close();
});
