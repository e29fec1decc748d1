import { expect, test } from "vitest";
import { ConnectionLost } from "../src/errors.js";
import { Outbox } from "../src/outbox.js";

const bytes = (...values: number[]) => Uint8Array.from(values);

test("unacknowledged audio is sent again from the first missing byte", () => {
  const outbox = new Outbox();
  outbox.put(bytes(1, 2, 3));
  outbox.put({ type: "finalize", id: 1 });
  outbox.put(bytes(4, 5));
  expect([outbox.take(), outbox.take(), outbox.take(), outbox.take()].length).toBe(4);
  outbox.rewind(2);
  expect(outbox.held).toBe(3);
  expect(outbox.take()).toEqual(bytes(3));
  expect(outbox.take()).toEqual({ type: "finalize", id: 1 });
  expect(outbox.take()).toEqual(bytes(4, 5));
});

test("a request at the acknowledged position is repeated until it is answered", () => {
  const outbox = new Outbox();
  outbox.put(bytes(1, 2));
  outbox.put({ type: "finalize", id: 7 });
  outbox.take();
  outbox.take();
  outbox.rewind(2);
  expect(outbox.take()).toEqual({ type: "finalize", id: 7 });
  outbox.answered(7);
  outbox.rewind(2);
  expect(outbox.take()).toBeUndefined();
  expect(outbox.held).toBe(0);
});

test("an impossible acknowledged position raises an error", () => {
  const outbox = new Outbox();
  outbox.put(bytes(1, 2));
  outbox.take();
  outbox.forget(2);
  expect(() => outbox.rewind(1)).toThrow(ConnectionLost);
  expect(() => outbox.forget(9)).toThrow(ConnectionLost);
});
