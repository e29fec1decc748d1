/** Debian's Chromium, whose microphone hears a file of real speech. */

import { fileURLToPath } from "node:url";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { expect } from "vitest";

export const SPEECH = fileURLToPath(new URL("../../tests/conformance/speech.wav", import.meta.url));
export const SAID = "seven three nine zero one five eight two";

const FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  ...["--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream"],
];

export interface Options extends BrowserContextOptions {
  /** Whether the microphone may be used, and hears the speech. */
  microphone?: "allowed" | "refused" | "missing";
  /** As in browsers that give audio through worklets alone. */
  worklet?: boolean;
}

/** Each page has a browser of its own, for a file is heard from its beginning once a browser. */
export async function open(url: string, options: Options = {}): Promise<{ page: Page; faults: string[]; close: () => Promise<void> }> {
  const { microphone = "allowed", worklet = false, ...context } = options;
  const browser: Browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [...FLAGS, `--use-file-for-fake-audio-capture=${SPEECH}%noloop`, ...(microphone === "refused" ? [] : ["--use-fake-ui-for-media-stream"])],
  });
  const made = await browser.newContext({
    viewport: { width: 1100, height: 720 },
    permissions: microphone === "refused" ? [] : ["microphone", "clipboard-read", "clipboard-write"],
    ...context,
  });
  made.setDefaultTimeout(120_000);
  const page = await made.newPage();
  if (microphone === "missing") {
    await page.addInitScript(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("none", "NotFoundError"));
    });
  }
  if (worklet) await page.addInitScript("delete globalThis.MediaStreamTrackProcessor");
  const faults: string[] = [];
  page.on("console", (message) => void (["error", "warning"].includes(message.type()) && faults.push(message.text())));
  page.on("pageerror", (error) => void faults.push(error.message));
  page.on("request", (request) => void (request.url().startsWith(new URL(url).origin) || /^(data|blob):/.test(request.url()) || faults.push(request.url())));
  await page.goto(url);
  return { page, faults, close: () => browser.close() };
}

/** The words on the page. */
export async function words(page: Page): Promise<string> {
  const said = await page.locator(".live .utterance > p").allTextContents();
  return said.join(" ").replaceAll(/\s+/g, " ").trim();
}

/** Speaks the file into the page, to its end. */
export async function speak(page: Page, meanwhile: () => Promise<void> = async () => undefined): Promise<void> {
  await page.getByRole("button", { name: "Start listening" }).click();
  await meanwhile();
  await expect.poll(() => words(page)).toContain("two");
  await page.getByRole("button", { name: "Stop listening" }).click();
  await page.getByText("Press the microphone and speak.").waitFor();
}
