/**
 * A live stream that survives broken connections.
 *
 * Audio goes into an outbox, which keeps it until the server acknowledges it. When the connection breaks, the client
 * reconnects with the token of the stream and the number of the last event: the server sends the later events, and the
 * client sends the missing audio again. Senders and readers are not interrupted until the server's resume timeout
 * expires.
 *
 * A restarted server has lost all streams. Then the client opens a new stream and replays the audio since the last
 * final; times and utterance numbers continue.
 */

import { CannotConnect, ConnectionLost, ConureError, refusal } from "./errors.js";
import { History } from "./history.js";
import { Inbox } from "./inbox.js";
import { Outbox } from "./outbox.js";
import type {
  Cancelled,
  Config,
  Endpointing,
  Final,
  Finals,
  Finished,
  FromClient,
  FromServer,
  Hello,
  Lag,
  Marker,
  Partial,
  Ready,
  SpeechStarted,
  UtteranceEnd,
  Warned,
} from "./protocol.js";
import { openSocket, type Socket } from "./socket.js";
import type { Ticket } from "./ticket.js";

export type Event = SpeechStarted | Partial | UtteranceEnd | Final | Marker | Lag | Warned | Finished | Cancelled;

/** State of the connection; a stream that is `away` tries to reconnect. */
export type Connection = { state: "open" | "resumed" } | { state: "away"; reason: string };

export interface StreamOptions {
  model?: string;
  /** Latency (look-ahead) of the model in milliseconds; the server's status lists what each model supports. */
  latencyMs?: number;
  language?: string;
  endpointing?: Endpointing;
  /** Finals from another, more accurate model. */
  finals?: Finals;
  /** Sample rate of the audio in Hz, 8,000 to 48,000. */
  sampleRate?: number;
  encoding?: "pcm16" | "f32" | "mulaw" | "alaw" | "container";
  channels?: number;
  /** Whether the server sends `lag` events, once per second. */
  lag?: boolean;
  /**
   * Seconds of reconnect attempts, as long as all audio since the last final is kept. Default: the server's resume
   * timeout; a larger value helps if the server needs longer to restart.
   */
  awaySeconds?: number;
  /** Called when the connection breaks and when it is restored. */
  onConnection?: (connection: Connection) => void;
}

export interface Address {
  url: string;
  key: string | null;
  /** Connection timeout in milliseconds. */
  patience: number;
}

const KEPT_SECONDS = 10;
/** Seconds of audio kept in addition to the audio of the reconnect period. */
const FIRST_DELAY = 100;
const LONGEST_DELAY = 5000;
const MOST_BUFFERED = 2 ** 20;
/** Limit of bytes buffered in the socket; the rest stays in the outbox. */
const LOOK = 20;
const BYTES = { pcm16: 2, f32: 4, mulaw: 1, alaw: 1, container: 4 };

export class Stream implements AsyncIterable<Event> {
  /** The server's last `ready` message (on open or resume): model, latency, token. */
  ready!: Ready;
  /** Number of reconnects. */
  breaks = 0;
  #inbox = new Inbox<Event>();
  #outbox = new Outbox();
  #history: History;
  /** Offset of the server's stream: seconds and utterances that came before it. */
  #before = { seconds: 0, utterances: 0 };
  #utterance = 0;
  #socket: Socket | null = null;
  #seq = 0;
  #asked = 0;
  #unanswered = new Set<number>();
  #closing = false;
  /** Time at which the connection broke; 0 while connected. */
  #since = 0;
  #attempts = 0;
  #flushing: ReturnType<typeof setTimeout> | null = null;

  private constructor(
    private readonly address: Address,
    private readonly options: StreamOptions,
  ) {
    const { encoding = "pcm16", sampleRate = 16000, channels = 1 } = options;
    this.#history = new History(encoding === "container" ? null : sampleRate, BYTES[encoding] * channels);
  }

  /** Throws CannotConnect, or ServerError with the server's message. */
  static async open(address: Address, options: StreamOptions): Promise<Stream> {
    const stream = new Stream(address, options);
    stream.ready = await stream.#connect([stream.#hello(), stream.#config()]);
    options.onConnection?.({ state: "open" });
    return stream;
  }

  /** Resumes a stream that another page or process has left. Throws CannotConnect, or ServerError if it has expired. */
  static async resume(address: Address, ticket: Ticket, options: StreamOptions): Promise<Stream> {
    const stream = new Stream(address, options);
    stream.#history = new History(null, 1); // earlier audio is not available here
    stream.#before = { ...ticket.before };
    stream.#seq = ticket.seq;
    stream.ready = await stream.#connect([{ type: "resume", token: ticket.token, seq: ticket.seq }]);
    options.onConnection?.({ state: "resumed" });
    return stream;
  }

  /** A ticket for `Client.resume` after event `seq`, valid for `ready.resume_seconds`. */
  ticket(seq: number): Ticket {
    return { token: this.ready.token, seq, before: { ...this.#before } };
  }

  /** Sends audio in the encoding of the stream. Waits while the outbox is full of unacknowledged audio. */
  async send(audio: Uint8Array | Int16Array | Float32Array): Promise<void> {
    if (this.#closing) throw new ConureError("the stream was closed: it takes no more audio", "closed");
    while (this.#outbox.held > this.#capacity && !this.#inbox.isOver) await sleep(LOOK);
    if (this.#inbox.isOver) throw new ConureError("the stream is over", "closed", "open another one");
    const bytes = new Uint8Array(audio.buffer.slice(audio.byteOffset, audio.byteOffset + audio.byteLength));
    this.#history.put(bytes);
    this.#outbox.put(bytes);
    this.#flush();
  }

  /** Requests a final of everything sent so far; returns the id of the marker that follows it. */
  finalize(): number {
    this.#asked += 1;
    this.#unanswered.add(this.#asked);
    this.#outbox.put({ type: "finalize", id: this.#asked });
    this.#flush();
    return this.#asked;
  }

  /** Ends the audio. The last finals follow, then `finished`, then the iterator ends. */
  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#outbox.put({ type: "close" });
    this.#flush();
  }

  /** Discards what has not been transcribed. */
  cancel(): void {
    this.#closing = true;
    this.#say({ type: "cancel" });
    this.#end(null);
  }

  /** Closes the connection; the stream reconnects by itself. */
  reconnect(): void {
    this.#socket?.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<Event> {
    return this.#inbox;
  }

  get #capacity(): number {
    const { encoding = "pcm16", sampleRate = 16000, channels = 1 } = this.options;
    return BYTES[encoding] * sampleRate * channels * (Math.max(this.#awaySeconds, KEPT_SECONDS) + KEPT_SECONDS);
  }

  get #awaySeconds(): number {
    const { resume_seconds } = this.ready;
    return this.#history.isComplete ? Math.max(resume_seconds, this.options.awaySeconds ?? 0) : resume_seconds;
  }

  #hello(): Hello {
    const { sampleRate = 16000, encoding = "pcm16", channels = 1 } = this.options;
    return { type: "hello", sample_rate: sampleRate, encoding, channels };
  }

  #config(): Config {
    const { model, latencyMs, language, endpointing, finals, lag } = this.options;
    const config: Config = { type: "config", events: true };
    if (model !== undefined) config.model = model;
    if (latencyMs !== undefined) config.latency_ms = latencyMs;
    if (language !== undefined) config.language = language;
    if (endpointing !== undefined) config.endpointing = endpointing;
    if (finals !== undefined) config.finals = finals;
    if (lag !== undefined) config.lag = lag;
    return config;
  }

  /** Connects, sends the first messages and waits for `ready`. */
  #connect(first: FromClient[]): Promise<Ready> {
    return new Promise((resolve, reject) => {
      const protocols = this.address.key === null ? [] : ["token", this.address.key];
      let ready = false;
      let over = false;
      let socket: Socket | null = null;
      const fail = (error: Error) => {
        if (over) return;
        over = true;
        clearTimeout(timer);
        socket?.close();
        reject(error);
      };
      const timer = setTimeout(
        () => fail(new CannotConnect(`${this.address.url} did not answer within ${this.address.patience / 1000} s`)),
        this.address.patience,
      );
      const listener = {
        opened: () => queueMicrotask(() => first.forEach((message) => socket?.send(JSON.stringify(message)))),
        said: (text: string) => {
          const message = JSON.parse(text) as FromServer;
          if (ready) this.#take(message);
          else if (message.type === "ready") {
            ready = over = true;
            clearTimeout(timer);
            this.#socket = socket;
            if (!this.ready) this.#outbox = new Outbox(message.received); // nonzero if the stream was opened elsewhere
            this.#outbox.rewind(message.received);
            resolve(message);
            this.#flush();
          } else if (message.type === "error" || message.type === "failed") fail(refusal(message));
        },
        closed: (reason: string) => {
          if (!ready) fail(new CannotConnect(`${this.address.url} hung up: ${reason}`));
          else if (this.#socket === socket) this.#broke(reason);
        },
      };
      void openSocket(this.address.url, protocols, listener).then((made) => {
        socket = made;
        if (over && !ready) made.close();
      }, fail);
    });
  }

  #take(message: FromServer): void {
    this.#attempts = 0;
    this.#since = 0;
    switch (message.type) {
      case "received":
        this.#outbox.forget(message.received);
        return;
      case "error":
      case "failed":
        this.#end(refusal(message));
        return;
      case "pong":
      case "ready":
      case "result":
      case "hello":
        return;
    }
    if (message.seq <= this.#seq) return; // a repeated finalize has a repeated answer
    this.#seq = message.seq;
    this.#deliver(this.#shifted(message));
  }

  #deliver(message: Event): void {
    if (message.type === "final") {
      this.#utterance = message.utterance;
      this.#history.forget(message.end);
    }
    if (message.type === "marker") {
      if (!this.#unanswered.delete(message.id)) return;
      this.#outbox.answered(message.id);
    }
    this.#inbox.put(message);
    if (message.type === "finished" || message.type === "cancelled") this.#end(null);
  }

  /** Converts times and utterance numbers to those of the whole stream. */
  #shifted(event: Event): Event {
    const { seconds, utterances } = this.#before;
    if (!seconds && !utterances) return event;
    const at = (time: number) => Math.round((time + seconds) * 1000) / 1000;
    switch (event.type) {
      case "speech_started":
      case "utterance_end":
        return { ...event, utterance: event.utterance + utterances, at: at(event.at) };
      case "partial":
        return { ...event, utterance: event.utterance + utterances, until: at(event.until) };
      case "final": {
        const words = event.words?.map((word) => ({ ...word, ...times(word.start, word.end, at) })) ?? null;
        const moved = { utterance: event.utterance + utterances, start: at(event.start), end: at(event.end) };
        return { ...event, ...moved, words };
      }
      case "finished":
        return { ...event, seconds: at(event.seconds) };
      default:
        return event;
    }
  }

  #flush(): void {
    if (this.#flushing) return;
    while (this.#socket) {
      if (this.#socket.bufferedAmount > MOST_BUFFERED) {
        this.#flushing = setTimeout(() => {
          this.#flushing = null;
          this.#flush();
        }, LOOK);
        return;
      }
      const what = this.#outbox.take();
      if (what === undefined) return;
      this.#socket.send(what instanceof Uint8Array ? what : JSON.stringify(what));
    }
  }

  #say(message: FromClient): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #broke(reason: string): void {
    this.#socket = null;
    if (this.#inbox.isOver) return;
    this.options.onConnection?.({ state: "away", reason });
    void this.#comeBack(reason);
  }

  async #comeBack(reason: string): Promise<void> {
    this.#since ||= Date.now(); // already set if the last connection received no message
    let last = reason;
    let least = 0;
    while (!this.#inbox.isOver) {
      const delay = Math.max(least, Math.random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempts++));
      if (Date.now() + delay >= this.#since + this.#awaySeconds * 1000) {
        const within = `${this.#awaySeconds} s`;
        this.#end(new ConnectionLost(`the connection broke (${reason}) and could not be resumed within ${within}: ${last}`));
        return;
      }
      await sleep(delay);
      if (this.#inbox.isOver) return;
      try {
        this.ready = await this.#connect(this.#first());
        this.breaks += 1;
        this.options.onConnection?.({ state: "resumed" });
        return;
      } catch (error) {
        const failed = error as ConureError;
        last = failed.message;
        least = (failed.retryAfter ?? 0) * 1000;
        if (failed.code === "bad_option" && this.#history.isComplete) {
          this.#startAnew();
          continue;
        }
        if (!(failed instanceof CannotConnect) && failed.code !== "busy") {
          this.#end(new ConnectionLost(`the connection broke (${reason}) and could not be resumed: ${last}`));
          return;
        }
      }
    }
  }

  /** The first messages: `resume`, or those of a new stream if the server has lost the last one. */
  #first(): FromClient[] {
    const isNew = this.#outbox.received === 0 && this.#seq === 0;
    return isNew ? [this.#hello(), this.#config()] : [{ type: "resume", token: this.ready.token, seq: this.#seq }];
  }

  #startAnew(): void {
    this.#before = { seconds: this.#history.start, utterances: this.#utterance };
    this.#seq = 0;
    this.#outbox = new Outbox();
    for (const part of this.#history.parts) this.#outbox.put(part);
    for (const id of this.#unanswered) this.#outbox.put({ type: "finalize", id });
    if (this.#closing) this.#outbox.put({ type: "close" });
  }

  #end(error: Error | null): void {
    this.#inbox.end(error);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}

function times(start: number | null | undefined, end: number | null | undefined, at: (time: number) => number) {
  return { start: start == null ? null : at(start), end: end == null ? null : at(end) };
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
