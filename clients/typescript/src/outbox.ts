/**
 * Queue of unacknowledged audio and requests, in order, kept until the server acknowledges them.
 *
 * Positions are bytes of audio since the start of the stream. After a reconnect everything after the acknowledged
 * position is sent again, and so is a request right at that position: the server may not have read it.
 */

import { ConnectionLost } from "./errors.js";
import type { Close, Finalize } from "./protocol.js";

export type Outgoing = Uint8Array | Finalize | Close;

interface Item {
  /** Position after the item; a request has length 0. */
  end: number;
  what: Outgoing;
}

export class Outbox {
  /** Bytes of audio in the queue. */
  held = 0;
  #received = 0;
  #end = 0;
  #writtenEnd = 0;
  #waiting: Item[] = [];
  #written: Item[] = [];

  /** `received`: bytes of the stream that the server already has. */
  constructor(received = 0) {
    this.#received = this.#end = this.#writtenEnd = received;
  }

  /** Bytes that the server has acknowledged. */
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

  /** The next item to send; it counts as sent from now on. */
  take(): Outgoing | undefined {
    const item = this.#waiting.shift();
    if (!item) return undefined;
    this.#written.push(item);
    this.#writtenEnd = item.end;
    return item.what;
  }

  /** Drops what the server has acknowledged: `received` bytes. */
  forget(received: number): void {
    if (received > this.#writtenEnd) {
      throw new ConnectionLost(`the server has received ${received} bytes of audio, and ${this.#writtenEnd} were sent`);
    }
    this.#received = Math.max(this.#received, received);
    while (this.#written[0] && this.#isSafe(this.#written[0])) this.#drop(this.#written.shift()!);
  }

  /** Drops the finalize request `id`: the server has answered it. */
  answered(id: number): void {
    const is = (item: Item) => !(item.what instanceof Uint8Array) && item.what.type === "finalize" && item.what.id === id;
    this.#written = this.#written.filter((item) => !is(item));
    this.#waiting = this.#waiting.filter((item) => !is(item));
  }

  /** Queues again what the server does not have. */
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
      const left = Math.min(first.end - received, first.what.length); // the server may have the first part of a packet
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
