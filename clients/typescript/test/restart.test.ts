import { expect, test } from "vitest";
import { Client, type Event } from "../src/index.js";
import { serve } from "./server.js";
import { SAID, packets } from "./speech.js";

test("audio without a final is replayed to a restarted server", async () => {
  const first = await serve("free");
  const client = new Client(first.url);
  const stream = await client.stream({ endpointing: { silence: 0.3 } });
  const spoken = packets();
  const events: Event[] = [];
  const reading = (async () => {
    for await (const event of stream) events.push(event);
  })();
  const half = spoken.length / 2;
  for (const packet of spoken.slice(0, half)) await stream.send(packet);
  await expect.poll(() => events.some((event) => event.type === "final")).toBe(true);
  await first.kill("SIGKILL");
  for (const packet of spoken.slice(half)) await stream.send(packet);
  stream.close();
  const second = await serve(new URL(first.url).port);
  await reading;
  await second.kill("SIGTERM");
  const finals = events.flatMap((event) => (event.type === "final" ? [event] : []));
  expect(finals.map((final) => final.text).filter(Boolean).join(" ")).toBe(SAID);
  const starts = finals.flatMap((final) => final.words?.map((word) => word.start ?? 0) ?? []);
  expect(starts).toEqual([...starts].sort((a, b) => a - b));
  const numbers = finals.map((final) => final.utterance);
  expect(new Set(numbers).size).toBe(numbers.length);
  expect(stream.breaks).toBe(1);
});
