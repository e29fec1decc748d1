/** The view of the server, in the words of those who run one. */

import { expect, inject, test } from "vitest";
import { Client } from "@conure/client";
import { open } from "./browser.js";

const url = inject("url");
const chart = (label: string) => `.chart:has(figcaption span:text-is("${label}")) strong`;
const LONG = { timeout: 45_000 };

test("streams now and at most, delay, busy, memory and crashes", async () => {
  const { page, faults, close } = await open(url);
  const shown = (label: string) => page.locator(chart(label));
  await page.getByRole("link", { name: "Server" }).click();
  await expect.poll(() => shown("Busy").textContent(), LONG).toMatch(/^\d+ %$/);
  expect(await shown("Delay").textContent()).toBe("not known"); // nobody speaks
  const told = await new Client(url).status();
  await expect.poll(() => shown("Live streams").textContent(), LONG).toBe(String(told.streams));
  const most = told.models.flatMap(({ streams }) => Object.values(streams));
  await page.getByText(`of ${Math.min(...most)} to ${Math.max(...most)} at most`).waitFor();
  await page.getByText("no crash").waitFor();
  await expect.poll(() => shown("Memory").textContent()).toMatch(/^[\d.]+ [MG]B$/);
  await page.getByRole("link", { name: "Live", exact: true }).click();
  await page.getByRole("button", { name: "Start listening" }).click();
  await page.getByRole("link", { name: "Server" }).click();
  await expect.poll(() => shown("Live streams").textContent(), LONG).toBe(String(told.streams + 1));
  await expect.poll(() => shown("Delay").textContent(), LONG).toMatch(/^[\d.]+ m?s$/);
  const text = await page.locator(".server").innerText();
  expect(text).not.toMatch(/\b(lag|turns?|rows?|doors?|lanes?|slots?|MiB)\b/i);
  for (const chart of await page.locator(".chart").all()) expect((await chart.getAttribute("title"))!.length).toBeGreaterThan(20);
  expect(faults).toEqual([]);
  await close();
});

test("what the server does not tell is not known", async () => {
  const { page, close } = await open(url);
  await page.route("**/metrics", (route) => route.fulfill({ body: "" }));
  await page.route("**/health", (route) => route.fulfill({ json: { status: "ready", ready: true, uptime_seconds: 3 } }));
  await page.goto(`${url}/#server`);
  await page.reload();
  for (const label of ["Live streams", "Delay", "Busy", "Memory"]) {
    await expect.poll(() => page.locator(chart(label)).textContent(), LONG).toBe("not known");
  }
  await page.getByText("at most: not known").waitFor();
  await page.getByText("crashes: not known").waitFor();
  await close();
});
