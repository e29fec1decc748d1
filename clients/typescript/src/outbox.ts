/**
 * What the server may not have yet: audio and requests in their order, kept until they are safe.
 *
 * Places are bytes of audio since the start of the stream. After a break everything from behind what the server has is
 * written again; a request right at that place, too, for it may not have been read.
 */

import { ConnectionLost } from "./errors.js";
import type { Close, Finalize } from "./protocol.js";

export type Outgoing = Uint8Array | Finalize | Close;

interface Item {
  /** Place behind it; a request takes no room there. */
  end: number;
  what: Outgoing;
}

export class Outbox {
  /** Bytes that are kept. */
  held = 0;
  #received = 0;
  #end = 0;
  #writtenEnd = 0;
  #waiting: Item[] = [];
  #written: Item[] = [];

  /** `received`: bytes of the stream that the server has before any are put here. */
  constructor(received = 0) {
    this.#received = this.#end = this.#writtenEnd = received;
  }

  /** Bytes that are safe on the server's side. */
  get received(): number {
    return this.#received;
  }

  put(what: Outgoing): void {
    if (what instanceof Uint8Array) {
      this.#end += what.length;
      this.held += what.length;
    }
    this.#waiting.push({ end: this.#end, what });
  }

  /** The next to be written; from then on it counts as written. */
  take(): Outgoing | undefined {
    const item = this.#waiting.shift();
    if (!item) return undefined;
    this.#written.push(item);
    this.#writtenEnd = item.end;
    return item.what;
  }

  /** The server has so many bytes. */
  forget(received: number): void {
    if (received > this.#writtenEnd) {
      throw new ConnectionLost(`the server has received ${received} bytes of audio, and ${this.#writtenEnd} were sent`);
    }
    this.#received = Math.max(this.#received, received);
    while (this.#written[0] && this.#isSafe(this.#written[0])) this.#drop(this.#written.shift()!);
  }

  /** The server has answered the finalize of that number. */
  answered(id: number): void {
    const is = (item: Item) => !(item.what instanceof Uint8Array) && item.what.type === "finalize" && item.what.id === id;
    this.#written = this.#written.filter((item) => !is(item));
    this.#waiting = this.#waiting.filter((item) => !is(item));
  }

  /** Write again what the server does not have. */
  rewind(received: number): void {
    if (received < this.#received) {
      throw new ConnectionLost(`the server has lost ${this.#received - received} bytes of audio that it had received`);
    }
    this.forget(received);
    this.#waiting = [...this.#written, ...this.#waiting];
    this.#written = [];
    this.#writtenEnd = received;
    const first = this.#waiting.find((item) => item.what instanceof Uint8Array);
    if (first?.what instanceof Uint8Array) {
      const left = Math.min(first.end - received, first.what.length); // the server may have the beginning of a packet
      this.held -= first.what.length - left;
      first.what = first.what.subarray(first.what.length - left);
    }
  }

  #isSafe(item: Item): boolean {
    return item.end < this.#received || (item.end === this.#received && item.what instanceof Uint8Array);
  }

  #drop(item: Item): void {
    if (item.what instanceof Uint8Array) this.held -= item.what.length;
  }
}
