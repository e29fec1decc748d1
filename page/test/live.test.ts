import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@conure/client";
import { expect, inject, test } from "vitest";
import { serve } from "../../clients/typescript/test/server.js";
import { SAID, SPEECH, open, speak, words } from "./browser.js";

const url = inject("url");

async function downloaded(page: import("playwright-core").Page, format: string): Promise<string> {
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: `Download as ${format}` }).click()]);
  return readFileSync((await download.path())!, "utf8");
}

test("what is spoken is on the page as it is in the file's transcript", async () => {
  const { page, faults, close } = await open(url);
  let tail = false;
  await speak(page, async () => {
    await page.locator(".tail:not(:empty)").first().waitFor();
    tail = true;
    await page.getByText(/behind/).waitFor();
  });
  expect(tail).toBe(true);
  const transcript = await new Client(url).transcribe(new Uint8Array(readFileSync(SPEECH)));
  expect(await words(page)).toBe(transcript.text);
  expect(await page.locator(".live .word").count()).toBe(SAID.split(" ").length);
  expect(await downloaded(page, "txt")).toContain("two");
  expect((await downloaded(page, "srt")).startsWith("1\n00:00:0")).toBe(true);
  expect((await downloaded(page, "vtt")).startsWith("WEBVTT\n\n00:00:0")).toBe(true);
  const json = JSON.parse(await downloaded(page, "json")) as { text: string; segments: { words: { text: string; start: number }[] }[] };
  expect(json.text).toBe(SAID);
  expect(json.segments.flatMap((segment) => segment.words.map((word) => word.text)).join(" ")).toBe(SAID);
  await page.getByRole("button", { name: "Copy" }).click();
  expect((await page.evaluate(() => navigator.clipboard.readText())).replaceAll("\n", " ").trim()).toBe(SAID);
  await page.getByRole("button", { name: "Clear" }).click();
  expect(await words(page)).toBe("");
  expect(faults).toEqual([]);
  await close();
});

test("browsers that give audio through worklets alone", async () => {
  const { page, faults, close } = await open(url, { worklet: true });
  await page.getByRole("button", { name: "Start listening" }).click();
  // What the worklet gets of the file has gaps on a machine with few cores, so that not every word is the same.
  await expect.poll(async () => (await words(page)).split(" ").length).toBeGreaterThan(4);
  await page.getByRole("button", { name: "Stop listening" }).click();
  await page.getByText("Press the microphone and speak.").waitFor();
  expect(faults).toEqual([]);
  await close();
});

test("a server that is started again loses and doubles no word", async () => {
  const first = await serve("free");
  const { page, close } = await open(first.url);
  let second: Awaited<ReturnType<typeof serve>> | null = null;
  await speak(page, async () => {
    await expect.poll(() => words(page)).toContain("nine");
    await first.kill("SIGKILL");
    await page.getByText("The connection is lost. It is coming back by itself").waitFor();
    second = await serve(new URL(first.url).port);
    await page.getByText("The connection is back").waitFor();
  });
  expect(await words(page)).toBe(SAID);
  await close();
  await second!.kill("SIGTERM");
});

test("a server that takes longer to start than it waits for streams loses and doubles no word", async () => {
  const first = await serve("free");
  const { page, close } = await open(first.url);
  await page.routeWebSocket(/v1\/stream/, (socket) => {
    const server = socket.connectToServer();
    server.onMessage((message) => socket.send(String(message).replace(/"resume_seconds":[\d.]+/, '"resume_seconds":0.5')));
  });
  await page.reload();
  let second: Awaited<ReturnType<typeof serve>> | null = null;
  await speak(page, async () => {
    await expect.poll(() => words(page), { timeout: 30_000 }).toContain("nine");
    await first.kill("SIGKILL");
    await page.getByText("The connection is lost. It is coming back by itself").waitFor();
    second = await serve(new URL(first.url).port); // takes seconds
    await page.getByText("The connection is back").waitFor();
  });
  expect(await words(page)).toBe(SAID);
  await expect.poll(() => page.locator(".live .notices").textContent()).toBe("");
  await close();
  await second!.kill("SIGTERM");
});

test("the keyboard is enough", async () => {
  const { page, close } = await open(url);
  await page.locator("nav a").last().focus();
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.getAttribute("aria-label"))).toBe("Start listening");
  await page.keyboard.press("Enter");
  await page.getByText("Listening").waitFor();
  await page.getByRole("button", { name: "Pause" }).press("Space");
  await page.getByText("Paused.").waitFor();
  await page.getByRole("button", { name: "Go on" }).press("Enter");
  await page.getByRole("button", { name: "Stop listening" }).press("Enter");
  await page.getByText("Press the microphone and speak.").waitFor();
  await close();
});

test("another microphone", async () => {
  const { page, close } = await open(url);
  await page.addInitScript(() => {
    const devices = navigator.mediaDevices;
    const ask = devices.getUserMedia.bind(devices);
    devices.getUserMedia = async (wanted) => {
      const media = await ask(wanted);
      document.title = media.getAudioTracks()[0]!.label;
      return media;
    };
  });
  await page.reload();
  const choice = page.locator(".choices select").first();
  await choice.selectOption("Fake Audio Input 2");
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("Listening").waitFor();
  expect(await page.title()).toBe("Fake Audio Input 2");
  expect(await choice.isDisabled()).toBe(true); // what is heard was chosen before
  await page.getByRole("button", { name: "Stop listening" }).click();
  await page.getByText("Press the microphone and speak.").waitFor();
  await close();
});

test.each([
  ["refused", "does not let this page use a microphone. Allow it"],
  ["missing", "There is no microphone. Connect one"],
] as const)("a microphone that is %s", async (microphone, sentence) => {
  const { page, close } = await open(url, { microphone });
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByRole("alert").getByText(sentence).waitFor();
  await expect.poll(async () => (await new Client(url).status()).streams).toBe(0); // also those of other tests
  await close();
});

test("a microphone that gives nothing", async () => {
  const { page, close } = await open(url);
  await page.addInitScript(() => {
    Object.assign(globalThis, { MediaStreamTrackProcessor: class { readable = new ReadableStream(); } });
  });
  await page.reload();
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByRole("alert").getByText("Another program keeps the microphone to itself.").waitFor();
  await page.getByText("Press the microphone and speak.").waitFor();
  await close();
});

test("a server that is full says so, and when it is gone", async () => {
  const full = await serve("free", "--max-streams", "1");
  const taken = await new Client(full.url).stream();
  const { page, close } = await open(full.url);
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByRole("alert").getByText("as many streams as it can. Wait a moment").waitFor();
  taken.cancel();
  await full.kill("SIGKILL");
  await page.getByRole("button", { name: "Start listening" }).click();
  await expect.poll(() => page.locator(".live .notices").textContent()).toContain("does not answer. Is it running?");
  await close();
});

test("a server with keys asks for one until it is the right one", async () => {
  const folder = mkdtempSync(join(tmpdir(), "keys-"));
  const keys = ["--keys", join(folder, "keys.json")];
  const told = execFileSync(process.env.CONURE_PYTHON ?? "python3", ["-m", "conure", "keys", "add", "page", ...keys], { encoding: "utf8" });
  const secret = /cnr_\S+/.exec(told)![0];
  const locked = await serve("free", ...keys);
  const { page, close } = await open(locked.url);
  const field = page.getByRole("dialog").getByLabel("Key");
  await field.fill("cnr_0123456789ab_wrong");
  await field.press("Enter");
  await page.getByRole("dialog").getByText("It does not know the key that it was given.").waitFor();
  await page.getByRole("button", { name: "Not now" }).click();
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("this is none that it knows. Enter one, then start again.").waitFor();
  await field.fill(secret);
  await field.press("Enter");
  await page.getByLabel("Model").getByText("tiny-live").waitFor({ state: "attached" });
  await speak(page);
  expect(await words(page)).toBe(SAID);
  expect(await page.content()).not.toContain(secret);
  await close();
  await locked.kill("SIGTERM");
  rmSync(folder, { recursive: true });
});

test("a language that the model does not have", async () => {
  const { page, close } = await open(url);
  // What the page knows of the server is from before it was started again with another model.
  await page.route("**/health", async (route) => {
    const answer = await route.fetch();
    const told = (await answer.json()) as { models: { languages: string[] }[] };
    for (const model of told.models) model.languages = ["en", "de"];
    await route.fulfill({ response: answer, json: told });
  });
  await page.reload();
  await page.getByLabel("Language").selectOption("de");
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByRole("alert").getByText("'de'").waitFor();
  expect(await page.getByRole("alert").textContent()).toMatch(/en/);
  await close();
});
