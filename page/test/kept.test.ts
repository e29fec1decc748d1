/** What was said outlives a reload, a closed tab and a crash; and the page says so where it cannot be kept. */

import { readFileSync } from "node:fs";
import type { Page } from "playwright-core";
import { expect, inject, test } from "vitest";
import { SAID, SPEECH, open, words } from "./browser.js";

const url = inject("url");
const LONG = { timeout: 45_000 };

/** Takes every question of the browser for a yes, and tells which there were. */
function yes(page: Page): string[] {
  const asked: string[] = [];
  page.on("dialog", (dialog) => {
    asked.push(dialog.type());
    void dialog.accept();
  });
  return asked;
}

async function saved(page: Page, format: string): Promise<string> {
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: `Download as ${format}` }).first().click()]);
  return readFileSync((await download.path())!, "utf8");
}

async function listen(page: Page, until: string): Promise<void> {
  await page.getByRole("button", { name: "Start listening" }).click();
  await expect.poll(() => words(page), LONG).toContain(until);
}

/** Speaks a few words; which were heard. */
async function speakSome(page: Page): Promise<string> {
  await listen(page, "three");
  await page.getByRole("button", { name: "Stop listening" }).click();
  await idle(page);
  return words(page);
}

async function idle(page: Page): Promise<void> {
  await page.getByText("Press the microphone and speak.").waitFor(LONG);
}

test("a reload while listening is asked about, and loses nothing that was heard", async () => {
  const { page, faults, close } = await open(url);
  const asked = yes(page);
  const heldBack: string[] = [];
  let holds = false;
  await page.routeWebSocket(/v1\/stream/, (socket) => {
    const server = socket.connectToServer();
    server.onMessage((message) => void (holds ? heldBack.push(String(message)) : socket.send(message)));
  });
  await page.reload();
  expect(asked).toEqual([]); // there is nothing to lose yet
  await listen(page, "three");
  holds = true; // the page does not know of the last words
  await expect.poll(() => heldBack.join(""), LONG).toContain("two");
  holds = false;
  const before = await words(page);
  expect(before).not.toContain("two");
  await page.reload();
  expect(asked).toEqual(["beforeunload"]);
  await page.getByText("This page was closed while it listened. What it had heard is here").waitFor(LONG);
  await expect.poll(() => words(page), LONG).toBe(SAID);
  await idle(page);
  expect(JSON.parse(await saved(page, "json"))).toMatchObject({ text: SAID });

  // It goes on where it was.
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("Listening", { exact: true }).waitFor(LONG);
  await page.getByRole("button", { name: "Stop listening" }).click();
  await idle(page);
  expect((await words(page)).startsWith(SAID)).toBe(true);
  await page.reload();
  await expect.poll(() => words(page), LONG).toContain(SAID);
  expect(asked).toEqual(["beforeunload"]); // all is kept, and nobody listens
  expect(faults).toEqual([]);
  await close();
});

test("a closed tab's transcript is offered, saved and discarded", async () => {
  const { page, close } = await open(url);
  const said = await speakSome(page);
  const json = await saved(page, "json");
  const context = page.context();
  await page.close();
  const next = await context.newPage();
  const asked = yes(next);
  await next.goto(`${url}/#earlier`);
  await next.getByRole("article").locator("summary").getByText(said).click();
  await expect.poll(async () => (await next.locator("article .utterance > p").allTextContents()).join(" "), LONG).toBe(said);
  expect(JSON.parse(await saved(next, "json"))).toEqual(JSON.parse(json));
  await next.getByRole("button", { name: /^Discard/ }).click();
  await next.getByText("There are none yet.").waitFor();
  expect(asked).toEqual(["confirm"]);
  await next.reload();
  await next.getByText("There are none yet.").waitFor();
  await close();
});

test("a crash of the tab loses no word that was shown", async () => {
  const { page, close } = await open(url);
  await listen(page, "nine");
  const next = await page.context().newPage();
  const gone = page.waitForEvent("crash");
  await page.goto("chrome://crash").catch(() => undefined);
  await gone;
  await next.goto(url);
  await expect.poll(() => words(next), LONG).toContain("seven three nine");
  await idle(next);
  expect(SAID.startsWith(await words(next))).toBe(true); // none is doubled
  await close();
});

test("a transcript is one tab's at a time", async () => {
  const { page, close } = await open(url);
  await listen(page, "three");
  const other = await page.context().newPage();
  yes(other);
  await other.goto(`${url}/#earlier`);
  const card = other.getByRole("article");
  await card.getByText("open in another tab").waitFor(LONG);
  expect(await card.getByRole("button", { name: /^Discard/ }).isDisabled()).toBe(true);
  // A copy of the tab has what the tab remembers, and must not write into its transcript.
  const own = await page.evaluate(() => sessionStorage.getItem("conure-transcript"));
  await other.evaluate((id) => sessionStorage.setItem("conure-transcript", id!), own);
  await other.goto(url);
  await other.reload();
  await other.getByText("What is said will be here").waitFor(LONG);
  await expect.poll(() => words(page), LONG).toContain("two");
  await page.getByRole("button", { name: "Stop listening" }).click();
  await idle(page);
  expect(await words(page)).toBe(SAID);
  await page.close();
  await other.goto(`${url}/#earlier`);
  await card.getByRole("button", { name: /^Discard/ }).click(LONG);
  await other.getByText("There are none yet.").waitFor();
  await close();
});

test("files, and those that were not finished", async () => {
  const { page, close } = await open(`${url}/#files`);
  const asked = yes(page);
  await page.setInputFiles("input[type=file]", SPEECH);
  await page.locator(".files").getByText("eight").waitFor(LONG);
  const srt = await saved(page, "srt");
  await page.reload();
  await page.route("**/v1/transcribe*", () => undefined); // never answered
  await page.setInputFiles("input[type=file]", { name: "talk.wav", mimeType: "audio/wav", buffer: readFileSync(SPEECH) });
  await page.getByRole("article", { name: "talk.wav" }).waitFor();
  expect(asked).toEqual([]);
  await page.reload();
  expect(asked).toEqual(["beforeunload"]);
  await page.getByRole("link", { name: "Earlier", exact: true }).click();
  await page.getByRole("article", { name: "talk.wav" }).getByText("Add it under Files again.").waitFor(LONG);
  const done = page.getByRole("article", { name: "speech.wav" });
  const [download] = await Promise.all([page.waitForEvent("download"), done.getByRole("button", { name: "Download as srt" }).click()]);
  expect(download.suggestedFilename()).toBe("speech.srt");
  expect(readFileSync((await download.path())!, "utf8")).toBe(srt);
  await page.getByRole("button", { name: "Discard all" }).click();
  await page.getByText("There are none yet.").waitFor();
  await close();
});

test("a browser that keeps nothing is told of, and the page works", async () => {
  const { page, close } = await open(url);
  const asked = yes(page);
  await page.addInitScript(() => {
    for (const name of ["indexedDB", "sessionStorage", "localStorage"]) {
      Object.defineProperty(globalThis, name, { get: () => { throw new DOMException("it is forbidden", "SecurityError"); } });
    }
  });
  await page.reload();
  await speakSome(page);
  await page.getByRole("alert").getByText("does not let the page keep anything").waitFor(LONG);
  await page.getByRole("link", { name: "Earlier", exact: true }).click();
  await page.locator("section[aria-label=Earlier]").getByRole("alert").waitFor();
  await page.reload();
  expect(asked).toEqual(["beforeunload"]); // it would be lost
  await close();
});

test("a browser without room says so, and keeps all once there is some", async () => {
  const { page, close } = await open(url);
  const session = await page.context().newCDPSession(page);
  const { origin } = new URL(url);
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1 });
  const full = page.getByRole("alert").getByText("no room left");
  const said = await speakSome(page);
  await full.waitFor(LONG);
  await session.send("Storage.overrideQuotaForOrigin", { origin });
  await full.waitFor({ state: "detached", ...LONG });
  await page.reload();
  await expect.poll(() => words(page), LONG).toBe(said);
  await close();
});

test("what is kept is bounded: the oldest go first, and none that a tab uses", async () => {
  const { page, close } = await open(url);
  await page.getByText("What is said will be here").waitFor();
  await page.getByRole("link", { name: "Earlier", exact: true }).click();
  await page.getByText("There are none yet.").waitFor(); // the database is there
  await page.evaluate(
    () =>
      new Promise<void>((resolve) => {
        indexedDB.open("conure").onsuccess = ({ target }) => {
          const all = (target as IDBOpenDBRequest).result;
          const transaction = all.transaction("transcripts", "readwrite");
          for (let age = 1; age <= 130; age++) transaction.objectStore("transcripts").put({ id: `${age}`, kind: "file", name: `old ${age}`, changed: 1000 - age });
          transaction.oncomplete = () => (all.close(), resolve());
        };
      }),
  );
  await page.getByRole("link", { name: "Files", exact: true }).click();
  await page.setInputFiles("input[type=file]", SPEECH);
  await page.locator(".files").getByText("eight").waitFor(LONG);
  await page.getByRole("link", { name: "Earlier", exact: true }).click();
  await expect.poll(() => page.getByRole("article").count(), LONG).toBe(100);
  await page.getByRole("article", { name: "speech.wav" }).waitFor();
  await page.getByRole("article", { name: "old 99", exact: true }).waitFor();
  await close();
});

test("what another version of the page has kept harms nothing", async () => {
  const { page, close } = await open(url);
  const said = await speakSome(page);
  const strange = () =>
    new Promise<void>((resolve) => {
      indexedDB.open("conure").onsuccess = ({ target }) => {
        const all = (target as IDBOpenDBRequest).result;
        const transaction = all.transaction(["transcripts", "paragraphs"], "readwrite");
        const [transcripts, paragraphs] = [transaction.objectStore("transcripts"), transaction.objectStore("paragraphs")];
        transcripts.put({ id: "old" });
        transcripts.put({ id: "odd", kind: 7, name: null, begun: "once", problems: "many", session: { ticket: 1 } });
        paragraphs.put({ transcript: "odd", number: 0, text: "some words", start: "0", words: [null, 3, { text: "some" }, { text: 1 }] });
        transaction.oncomplete = () => (all.close(), resolve());
      };
    });
  await page.evaluate(strange);
  await page.reload();
  await expect.poll(() => words(page), LONG).toBe(said);
  await page.getByRole("link", { name: "Earlier", exact: true }).click();
  await page.locator("summary").getByText("some words").click();
  await page.locator("article .utterance").getByText("some words").waitFor();
  expect(await page.getByRole("article").count()).toBe(2);

  // A newer one.
  const { page: newer, close: closeNewer } = await open(`${url}/ready`);
  await newer.evaluate(() => new Promise((resolve) => (indexedDB.open("conure", 99).onsuccess = (event) => ((event.target as IDBOpenDBRequest).result.close(), resolve(0)))));
  await newer.goto(url);
  await newer.getByRole("button", { name: "Start listening" }).click();
  await newer.getByRole("alert").getByText("A newer version of this page").waitFor(LONG);
  await closeNewer();
  await close();
});

