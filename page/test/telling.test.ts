/** What the page says, and stops saying when it is no longer so. */

import type { FromServer } from "@conure/client";
import type { Page, WebSocketRoute } from "playwright-core";
import { expect, inject, test } from "vitest";
import { open } from "./browser.js";

const url = inject("url");
const LONG = { timeout: 45_000 };
const READY = { type: "ready", stream_id: "1", token: "t", resume_seconds: 5, model: "tiny", latency_ms: 160, received: 0 } as const;

/** A socket that says what a server would that has too much to do. */
async function listening(page: Page): Promise<(message: FromServer) => void> {
  let socket: WebSocketRoute | null = null;
  let seq = 0;
  await page.routeWebSocket(/v1\/stream/, (opened) => {
    socket = opened;
    opened.onMessage((message) => {
      if (typeof message !== "string") return;
      if (message.includes('"hello"')) opened.send(JSON.stringify(READY));
      if (message.includes('"close"')) opened.send(JSON.stringify({ type: "finished", seq: 1000, seconds: 1, problems: [] }));
    });
  });
  await page.reload();
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("Listening", { exact: true }).waitFor(LONG);
  return (message) => socket!.send(JSON.stringify({ ...message, seq: ++seq }));
}

test("the microphone is told of on every view, in the title and in the icon, and stopped there", async () => {
  const { page, faults, close } = await open(url);
  const icon = () => page.locator('link[rel="icon"]').getAttribute("href");
  const plain = await icon();
  expect(await page.title()).toBe("Conure");
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("Listening", { exact: true }).waitFor(LONG);
  for (const view of ["Files", "Earlier", "Server"]) {
    await page.getByRole("link", { name: view, exact: true }).click();
    await page.getByRole("status").getByText("The microphone is on.").waitFor();
    await page.getByRole("button", { name: "Stop listening" }).waitFor();
    expect(await page.title()).toContain("Listening");
    expect(await icon()).toContain("assets/listening.svg");
  }
  await page.getByRole("link", { name: "Show it" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("link", { name: "Files" }).click();
  await page.getByRole("status").getByText("The microphone is open, but paused.").waitFor();
  await expect.poll(() => page.title()).toContain("Paused");
  expect((await page.request.get(`${url}/assets/listening.svg`)).headers()["content-type"]).toContain("image/svg+xml");
  await page.getByRole("button", { name: "Stop listening" }).click();
  await expect.poll(() => page.title()).toBe("Conure");
  await expect.poll(async () => new URL((await icon())!, url).pathname).toBe(new URL(plain!, url).pathname);
  expect(await page.getByText("The microphone is").count()).toBe(0);
  expect(faults).toEqual([]);
  await close();
});

test("that words come late is said while they do, and not after Stop", async () => {
  const { page, close } = await open(url);
  const say = await listening(page);
  const banner = page.locator(".live .notices").getByText("words come late");
  const late = () => say({ type: "warning", seq: 0, code: "lag", message: "the transcript is 2.5 s behind" });
  late();
  await banner.waitFor();
  say({ type: "lag", seq: 0, seconds: 0.2 });
  await banner.waitFor({ state: "detached" });
  late();
  say({ type: "warning", seq: 0, code: "other", message: "the moon is full" });
  await page.getByText("The server warns: the moon is full.").waitFor();
  await page.getByRole("button", { name: "Stop listening" }).click();
  await page.getByText("Press the microphone and speak.").waitFor(LONG);
  expect(await page.locator(".live .notices").textContent()).toBe("");
  await close();
});

test("that a copy worked is said for a moment", async () => {
  const { page, close } = await open(url);
  const say = await listening(page);
  say({ type: "partial", seq: 0, utterance: 1, stable: "so it is", tail: "", until: 1 });
  await page.getByText("so it is").waitFor();
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByText("Copied.").waitFor();
  await page.getByText("Copied.").waitFor({ state: "detached", ...LONG });
  await close();
});

test("a server that does not answer is told of until it does", async () => {
  const { page, close } = await open(url);
  let answers = false;
  await page.route("**/health", (route) => (answers ? route.continue() : route.abort()));
  await page.reload();
  const banner = page.getByRole("alert").getByText("The server does not answer.");
  await banner.waitFor(LONG);
  answers = true;
  await banner.waitFor({ state: "detached", ...LONG });
  await page.getByLabel("Model").getByText("tiny-live").waitFor({ state: "attached" });
  await close();
});
