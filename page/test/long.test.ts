/** A talk of hours, which nobody gives here: a socket that says what the server would. */

import type { FromServer } from "@conure/client";
import type { Page, WebSocketRoute } from "playwright-core";
import { expect, inject, test } from "vitest";
import { open } from "./browser.js";

const url = inject("url");
const WORDS = "it is said that a long talk is a good talk where somebody listens to it".split(" ");
const LONG = 1000;

function final(utterance: number, seq = utterance): FromServer {
  const start = utterance * 5;
  const words = WORDS.map((text, index) => ({ text, start: start + index * 0.2, end: start + index * 0.2 + 0.1, confidence: 1 - (index % 5) * 0.15 }));
  const rest = { start, end: start + 3.1, reason: "silence", model: "tiny", confidence: 0.9, language: "en" };
  return { type: "final", seq, utterance, text: WORDS.join(" "), words, ...rest };
}

async function drawn(page: Page): Promise<void> {
  await page.locator(".tail").waitFor();
  await page.screenshot({ path: `${process.env.FIGURES}/page-light-long.png` });
}

test("a talk of hours is followed to its end, and stays where it is read", async () => {
  const { page, faults, close } = await open(url);
  let socket: WebSocketRoute | null = null;
  const say = (message: FromServer) => socket!.send(JSON.stringify(message));
  const ready = { type: "ready", stream_id: "1", token: "t", resume_seconds: 5, model: "tiny", latency_ms: 160, received: 0 } as const;
  await page.routeWebSocket(/v1\/stream/, (opened) => {
    socket = opened;
    opened.onMessage((message) => {
      if (typeof message === "string" && message.includes('"hello"')) say(ready);
    });
  });
  await page.reload();
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("Listening").waitFor();
  for (let utterance = 1; utterance <= LONG; utterance++) say(final(utterance));
  await expect.poll(() => page.locator(".live .utterance").count()).toBe(LONG);
  const last = page.locator(".live .utterance").last();
  await expect.poll(() => last.evaluate((element) => element.getBoundingClientRect().bottom <= innerHeight)).toBe(true);

  // Someone who speaks without a pause, and fast.
  const rest = { utterance: LONG + 1, until: LONG * 5 + 8 };
  for (let count = 1; count <= 300; count++) {
    const said = Array.from({ length: count }, (_, index) => WORDS[index % WORDS.length]).join(" ");
    if (process.env.FIGURES && count === 14) await drawn(page);
    say({ type: "partial", stable: said.slice(0, -30), tail: said.slice(-30), seq: LONG + count, ...rest });
  }
  await expect.poll(async () => (await page.locator(".tail").textContent())?.length).toBe(30);
  await expect.poll(() => page.locator(".tail").evaluate((element) => element.getBoundingClientRect().bottom <= innerHeight)).toBe(true);
  // Whoever reads further up is left there.
  const transcript = page.getByRole("region", { name: "What was said" });
  await transcript.evaluate((element) => (element.scrollTop = 1000));
  await page.evaluate(() => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))); // the page is told of it
  say(final(LONG + 1, 2 * LONG));
  await page.getByText("it is said").nth(LONG).waitFor({ state: "attached" });
  expect(await transcript.evaluate((element) => element.scrollTop)).toBe(1000);
  expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
  expect(faults).toEqual([]);
  await close();
});
