import { expect, inject, test } from "vitest";
import { CannotConnect, Client, ServerError, type Event, type Stream } from "../src/index.js";
import { serve } from "./server.js";
import { PCM, SAID, WAV, packets } from "./speech.js";

const client = new Client(inject("url"));
/** Longer than the pauses of the speech, so that they do not end an utterance. */
const WHOLE = { endpointing: { silence: 1.5 } };

async function all(stream: Stream): Promise<Event[]> {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

function text(events: Event[]): string {
  return events.flatMap((event) => (event.type === "final" && event.text ? [event.text] : [])).join(" ");
}

test("transcribing a recording", async () => {
  const transcript = await client.transcribe(WAV);
  expect(transcript.text).toBe(SAID);
  expect(transcript.segments.flatMap((segment) => segment.words.map((word) => word.text)).join(" ")).toBe(SAID);
});

test("transcribing reports progress", async () => {
  const parts: number[] = [];
  const transcript = await client.transcribe(WAV, { onProgress: (part) => parts.push(part) });
  expect(transcript.text).toBe(SAID);
  expect(parts.at(-1)).toBe(1);
  const broken = await client.transcribe(new TextEncoder().encode("no audio"), { onProgress: () => undefined }).catch((error: unknown) => error);
  expect(broken).toMatchObject({ code: "unsupported_audio" });
});

test("live speech has partials before finals, and ends", async () => {
  const stream = await client.stream(WHOLE);
  expect(stream.ready.model).toBe("tiny-live");
  for (const packet of packets()) await stream.send(packet);
  stream.close();
  const events = await all(stream);
  expect(text(events)).toBe(SAID);
  const kinds = events.map((event) => event.type);
  expect(kinds.indexOf("partial")).toBeLessThan(kinds.indexOf("final"));
  expect(kinds.at(-1)).toBe("finished");
});

test("other sample formats", async () => {
  const stream = await client.stream({ ...WHOLE, encoding: "f32" });
  const samples = Float32Array.from(new Int16Array(PCM.slice().buffer), (sample) => sample / 32768);
  for (let begin = 0; begin < samples.length; begin += 1600) await stream.send(samples.subarray(begin, begin + 1600));
  stream.close();
  expect(text(await all(stream))).toBe(SAID);
});

test("the marker of a finalize follows its final", async () => {
  const stream = await client.stream({ endpointing: { silence: null, end_token: null, blanks: null } });
  for (const packet of packets()) await stream.send(packet);
  const id = stream.finalize();
  const heard: Event[] = [];
  for await (const event of stream) {
    heard.push(event);
    if (event.type === "marker") {
      expect(event.id).toBe(id);
      stream.close();
    }
  }
  const kinds = heard.map((event) => event.type);
  expect(kinds.indexOf("final")).toBeLessThan(kinds.indexOf("marker"));
  expect(text(heard)).toBe(SAID);
});

test("a broken connection loses and repeats nothing", async () => {
  const told: string[] = [];
  const stream = await client.stream({ ...WHOLE, onConnection: ({ state }) => told.push(state) });
  const all_packets = packets(20);
  for (const [index, packet] of all_packets.entries()) {
    await stream.send(packet);
    if (index % 100 === 50) {
      const before = stream.breaks;
      stream.reconnect();
      await stream.send(new Uint8Array()); // the sender does not notice the reconnect
      await expect.poll(() => stream.breaks).toBe(before + 1);
    }
  }
  stream.close();
  expect(text(await all(stream))).toBe(SAID);
  expect(stream.breaks).toBeGreaterThanOrEqual(2);
  expect(told.filter((state) => state === "away").length).toBe(stream.breaks);
});

test("a refusal has a reason and a hint", async () => {
  const refused = await client.stream({ model: "none" }).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(ServerError);
  expect(refused).toMatchObject({ code: "unknown_model", hint: expect.stringContaining("tiny-live") });
  const broken = await client.transcribe(new TextEncoder().encode("no audio")).catch((error: unknown) => error);
  expect(broken).toMatchObject({ code: "unsupported_audio" });
  const nowhere = await new Client("http://127.0.0.1:9").stream().catch((error: unknown) => error);
  expect(nowhere).toBeInstanceOf(CannotConnect);
});

test("leaving the iteration releases the stream", async () => {
  const server = await serve("free"); // no other test opens streams on it
  const own = new Client(server.url);
  const stream = await own.stream();
  await stream.send(PCM.subarray(0, 6400));
  expect((await own.status()).streams).toBe(1);
  stream.cancel();
  await expect.poll(async () => (await own.status()).streams).toBe(0);
  await server.kill("SIGTERM");
});

test("a second client resumes the stream of the first one", async () => {
  const first = await client.stream(WHOLE);
  const reading = all(first).catch((error: unknown) => error);
  for (const packet of packets()) await first.send(packet);
  const ticket = JSON.parse(JSON.stringify(first.ticket(0))) as ReturnType<Stream["ticket"]>;
  const second = await client.resume(ticket);
  second.close();
  expect(text(await all(second))).toBe(SAID);
  expect(await reading).toMatchObject({ code: "displaced" });
  const gone = await client.resume({ ...ticket, token: "unknown" }).catch((error: unknown) => error);
  expect(gone).toBeInstanceOf(ServerError);
});
