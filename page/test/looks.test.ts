import axe from "axe-core";
import { expect, inject, test } from "vitest";
import { SPEECH, open } from "./browser.js";

const url = inject("url");
/** Where screenshots are kept; they are made anew where this is set. */
const FIGURES = process.env.FIGURES;

const LOOKS = {
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  phone: { colorScheme: "light", viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
} as const;

test.each(Object.entries(LOOKS))("%s: nothing bars anyone from the page", async (name, look) => {
  const { page, faults, close } = await open(url, { ...look, reducedMotion: "reduce" });
  const shown = async (view: string) => {
    const own = faults.length;
    const serious = await page.evaluate(`${axe.source}; axe.run({ resultTypes: ["violations"] })`) as { violations: { id: string; impact: string; nodes: { html: string }[] }[] };
    faults.length = own; // what axe does to the page is not the page's
    const found = serious.violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
    expect(found.map(({ id, nodes }) => `${view}: ${id} ${nodes[0]?.html}`)).toEqual([]);
    const wider = await page.evaluate(() =>
      [document.documentElement, ...document.querySelectorAll("main > *")].filter((each) => each.scrollWidth > each.clientWidth).length,
    );
    expect(wider).toBe(0);
    if (FIGURES) await page.screenshot({ path: `${FIGURES}/page-${name}-${view}.png` });
  };
  await shown("empty");
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByText("zero").waitFor();
  await shown("live");
  await page.getByRole("link", { name: "Server" }).click();
  await page.getByText("tiny-live").last().waitFor();
  await page.waitForTimeout(FIGURES ? 20_000 : 1500);
  await shown("server");
  await page.getByRole("link", { name: "Live" }).click();
  await page.getByRole("button", { name: "Stop listening" }).click();
  await page.getByRole("link", { name: "Files" }).click();
  await page.setInputFiles("input[type=file]", SPEECH);
  await page.locator(".files").getByText("eight").waitFor();
  await page.getByRole("button", { name: "Play" }).waitFor();
  await shown("files");
  await page.getByText("The same from curl, Python or JavaScript").click();
  await page.getByLabel("Code for JavaScript").scrollIntoViewIfNeeded();
  await shown("programs");
  await page.getByRole("link", { name: "Earlier", exact: true }).click();
  await page.getByRole("article").first().waitFor();
  await page.locator("summary").getByText("seven").first().click();
  await shown("earlier");
  expect(faults).toEqual([]);
  await close();
});

test("the page is shown before anything is asked of the server", async () => {
  const { page, close } = await open("about:blank");
  await page.route("**/health", () => undefined); // never answered
  await page.goto(url);
  await page.getByRole("button", { name: "Start listening" }).waitFor();
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  expect(paint).toBeGreaterThan(0);
  if (FIGURES) console.log(`first paint after ${Math.round(paint!)} ms`);
  await close();
});

test("nobody else may use or frame the page", async () => {
  const answer = await fetch(url);
  const policy = answer.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toContain("unsafe");
  expect(policy).toContain("frame-ancestors 'none'");
  const again = (await fetch(url)).headers.get("content-security-policy");
  expect(again).not.toBe(policy); // its nonce is used once
  expect((await fetch(`${url}/assets/..%2findex.html`)).status).toBe(404);
});
