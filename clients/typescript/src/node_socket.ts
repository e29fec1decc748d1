/** A minimal WebSocket (RFC 6455) for Node before 22: receives text, sends text and binary, answers pings. */

import { createHash, randomBytes } from "node:crypto";
import { request as plain } from "node:http";
import { request as encrypted } from "node:https";
import type { Duplex } from "node:stream";
import type { Listener, Socket } from "./socket.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const MOST_BYTES = 2 ** 26;

export class NodeSocket implements Socket {
  #stream: Duplex | null = null;
  #rest: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];
  #reason = "the connection broke";
  #isClosed = false;

  constructor(
    url: string,
    protocols: string[],
    private readonly listener: Listener,
  ) {
    const key = randomBytes(16).toString("base64");
    const headers: Record<string, string> = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": key,
    };
    if (protocols.length) headers["Sec-WebSocket-Protocol"] = protocols.join(", ");
    const target = new URL(url);
    const secure = target.protocol === "wss:";
    target.protocol = secure ? "https:" : "http:";
    const asking = (secure ? encrypted : plain)(target, { headers });
    asking.on("upgrade", (answer, stream, head) => {
      const expected = createHash("sha1").update(key + GUID).digest("base64");
      if (answer.headers["sec-websocket-accept"] !== expected) {
        stream.destroy();
        this.#end("the server does not speak WebSocket");
        return;
      }
      this.#begin(stream, head);
    });
    asking.on("response", (answer) => {
      answer.resume();
      this.#end(`the server answered HTTP ${answer.statusCode}`);
    });
    asking.on("error", (error) => this.#end(error.message));
    asking.end();
  }

  get bufferedAmount(): number {
    return this.#stream?.writableLength ?? 0;
  }

  send(data: string | Uint8Array): void {
    const isText = typeof data === "string";
    this.#write(isText ? TEXT : BINARY, isText ? Buffer.from(data) : Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  }

  close(): void {
    if (this.#stream) this.#write(CLOSE, Buffer.from([0x03, 0xe8]));
    this.#stream?.end();
  }

  #begin(stream: Duplex, head: Buffer): void {
    this.#stream = stream;
    stream.on("data", (data: Buffer) => this.#read(data));
    stream.on("error", (error) => (this.#reason = error.message));
    stream.on("close", () => this.#end(this.#reason));
    stream.on("end", () => stream.destroy());
    this.listener.opened();
    if (head.length) this.#read(head);
  }

  #end(reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.listener.closed(reason);
  }

  #write(opcode: number, data: Buffer): void {
    if (!this.#stream?.writable) return;
    const mask = randomBytes(4);
    const length =
      data.length < 126
        ? Buffer.from([0x80 | data.length])
        : data.length < 65536
          ? Buffer.from([0x80 | 126, data.length >> 8, data.length & 255])
          : Buffer.concat([Buffer.from([0x80 | 127]), bigLength(data.length)]);
    const masked = Buffer.from(data);
    for (let index = 0; index < masked.length; index++) masked[index]! ^= mask[index & 3]!;
    this.#stream.write(Buffer.concat([Buffer.from([0x80 | opcode]), length, mask, masked]));
  }

  #read(data: Buffer): void {
    this.#rest = this.#rest.length ? Buffer.concat([this.#rest, data]) : data;
    for (let frame = this.#frame(); frame; frame = this.#frame()) this.#take(...frame);
  }

  /** The next frame: opcode, FIN bit and payload; null if it is incomplete. */
  #frame(): [number, boolean, Buffer] | null {
    const rest = this.#rest;
    if (rest.length < 2) return null;
    let length = rest[1]! & 0x7f;
    let begin = 2;
    if (length === 126) {
      if (rest.length < 4) return null;
      length = rest.readUInt16BE(2);
      begin = 4;
    } else if (length === 127) {
      if (rest.length < 10) return null;
      length = Number(rest.readBigUInt64BE(2));
      begin = 10;
    }
    if (length > MOST_BYTES) {
      this.#reason = `the server sent a message of ${length} bytes`;
      this.#stream?.destroy();
      return null;
    }
    if (rest.length < begin + length) return null;
    this.#rest = rest.subarray(begin + length);
    return [rest[0]! & 15, (rest[0]! & 0x80) !== 0, rest.subarray(begin, begin + length)];
  }

  #take(opcode: number, isLast: boolean, data: Buffer): void {
    if (opcode === PING) this.#write(PONG, data);
    else if (opcode === CLOSE) {
      const code = data.length >= 2 ? data.readUInt16BE(0) : 1005;
      this.#reason = data.subarray(2).toString() || `closed with ${code}`;
      this.close();
    } else if (opcode <= BINARY) {
      this.#parts.push(data);
      if (!isLast) return;
      const whole = Buffer.concat(this.#parts);
      this.#parts = [];
      this.listener.said(whole.toString());
    }
  }
}

function bigLength(length: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(length));
  return bytes;
}
