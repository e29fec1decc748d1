import { readFileSync } from "node:fs";
import { Client } from "@conure/client";
import { expect, inject, test } from "vitest";
import { SAID, SPEECH, open } from "./browser.js";

const url = inject("url");

test("recordings are dropped, played by word and taken away", async () => {
  const { page, faults, close } = await open(`${url}/#files`);
  const bytes = readFileSync(SPEECH);
  const dropped = await page.evaluateHandle((data) => {
    const transfer = new DataTransfer();
    const sound = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([sound], "first.wav", { type: "audio/wav" }));
    transfer.items.add(new File([sound], "second.wav", { type: "audio/wav" }));
    transfer.items.add(new File(["this is no sound"], "notes.txt"));
    return transfer;
  }, bytes.toString("base64"));
  await page.dispatchEvent(".drop", "drop", { dataTransfer: dropped });
  const first = page.getByRole("article", { name: "first.wav" });
  await first.getByRole("button", { name: "Play" }).waitFor();
  const transcript = await new Client(url).transcribe(new Uint8Array(bytes));
  expect((await first.locator(".utterance > p").allTextContents()).join(" ")).toBe(transcript.text);
  await page.getByRole("article", { name: "second.wav" }).getByText("eight").waitFor();
  const broken = page.getByRole("article", { name: "notes.txt" });
  await broken.getByText("This is no recording that can be read. Try another file.").waitFor();

  await first.getByText("eight").click();
  await expect.poll(() => first.locator(".word.now").textContent()).toBe("eight");
  await first.getByRole("button", { name: "Pause" }).click();
  for (const [format, begin] of [["txt", "seven"], ["srt", "1\n00:00"], ["vtt", "WEBVTT"], ["json", "{"]] as const) {
    const [download] = await Promise.all([page.waitForEvent("download"), first.getByRole("button", { name: `Download as ${format}` }).click()]);
    expect(download.suggestedFilename()).toBe(`first.${format}`);
    const text = readFileSync((await download.path())!, "utf8");
    expect(text.startsWith(begin)).toBe(true);
    expect(text.replaceAll(/[^a-z]+/g, " ")).toContain(SAID);
  }
  await broken.getByRole("button", { name: "Remove notes.txt" }).click();
  await expect.poll(() => page.getByRole("article").count()).toBe(2);
  expect(faults.filter((fault) => !fault.includes("415"))).toEqual([]); // the browser tells of what was refused
  await close();
});

test("a recording that is dropped beside the place for it does not replace the page", async () => {
  const { page, close } = await open(url);
  const dropped = await page.evaluateHandle((data) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], "talk.wav", { type: "audio/wav" }));
    return transfer;
  }, readFileSync(SPEECH).toString("base64"));
  const isLeft = await page.locator(".live .transcript").evaluate((place, dataTransfer) => {
    const events = ["dragover", "drop"].map((name) => new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }));
    return events.some((event) => place.dispatchEvent(event)); // the browser does with it what it likes
  }, dropped);
  expect(isLeft).toBe(false);
  await page.getByRole("article", { name: "talk.wav" }).getByText("eight").waitFor({ timeout: 45_000 });
  await close();
});
