import { expect, test } from "vitest";
import { Packets, type Packet } from "../src/packets.js";

test("packets have 40 ms, and the last one has the rest", () => {
  const given: Packet[] = [];
  const packets = new Packets(16_000, (packet) => given.push(packet));
  packets.push([new Float32Array(1000).fill(0.5)]);
  expect(given.map(({ samples }) => samples.length)).toEqual([640]);
  packets.end();
  packets.end();
  expect(given.map(({ samples }) => samples.length)).toEqual([640, 360]);
  expect(given.map(({ level }) => level)).toEqual([0.5, 0.5]);
});

test("channels are mixed, and samples beyond full scale are clipped", () => {
  const given: Packet[] = [];
  const packets = new Packets(16_000, (packet) => given.push(packet));
  packets.push([Float32Array.of(1, 2, -3, 0), Float32Array.of(0, 2, -3, 0.5)]);
  packets.end();
  expect([...given[0]!.samples]).toEqual([Math.round(0.5 * 32767), 32767, -32767, Math.round(0.25 * 32767)]);
});

test("no channels give no packet", () => {
  const packets = new Packets(16_000, () => expect.unreachable());
  packets.push([]);
  packets.end();
});
