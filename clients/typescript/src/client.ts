/** The client of one server: live streams, transcription of recordings, server status. */

import { CannotConnect, ConureError, refusal } from "./errors.js";
import { Stream, type Address, type StreamOptions } from "./stream.js";
import type { Ticket } from "./ticket.js";

export interface ClientOptions {
  /** API key; needed if the server requires keys. */
  key?: string;
  /** Connection timeout in milliseconds. */
  patience?: number;
}

export interface TranscribeOptions {
  model?: string;
  language?: string;
  signal?: AbortSignal;
  /** Called with the uploaded fraction, from 0 to 1. Browsers only. */
  onUpload?: (part: number) => void;
  /** Called with the transcribed fraction, from 0 to 1, if the recording has a known duration. Browsers only. */
  onProgress?: (part: number) => void;
}

export interface TranscriptWord {
  text: string;
  start: number | null;
  end: number | null;
  confidence: number | null;
}

export interface TranscriptSegment {
  text: string;
  start: number | null;
  end: number | null;
  words: TranscriptWord[];
}

export interface Transcript {
  text: string;
  language: string | null;
  duration: number;
  model: string | null;
  segments: TranscriptSegment[];
  problems: string[];
}

export interface ServerModel {
  name: string;
  live: boolean;
  clips: boolean;
  runner: string;
  languages: string[];
  /** Stream capacity as measured on this machine, by latency in milliseconds. */
  streams: Record<string, number>;
}

export interface Status {
  status: "ready" | "restarting" | "draining";
  ready: boolean;
  streams: number;
  uptime_seconds: number;
  engine_restarts: number;
  /** Bytes of memory of each process. */
  memory?: Record<string, number>;
  models: ServerModel[];
}

export class Client {
  readonly url: URL;
  readonly #key: string | null;
  readonly #patience: number;

  /** `url`: http, https, ws or wss. A path in it is a prefix that a proxy adds. */
  constructor(url: string | URL, options: ClientOptions = {}) {
    this.url = new URL(url);
    this.#key = options.key ?? null;
    this.#patience = options.patience ?? 10_000;
  }

  /** Opens a live stream. */
  stream(options: StreamOptions = {}): Promise<Stream> {
    return Stream.open(this.#streams, options);
  }

  /** Resumes a live stream that another page or process has left, with the ticket that `Stream.ticket` returned there. */
  resume(ticket: Ticket, options: StreamOptions = {}): Promise<Stream> {
    return Stream.resume(this.#streams, ticket, options);
  }

  get #streams(): Address {
    const url = this.#at("/v1/stream");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    return { url: url.href, key: this.#key, patience: this.#patience };
  }

  /** Transcribes a recording of any length and container. Throws CannotConnect or ServerError. */
  async transcribe(recording: Blob | ArrayBuffer | Uint8Array, options: TranscribeOptions = {}): Promise<Transcript> {
    const url = this.#at("/v1/transcribe");
    if (options.model) url.searchParams.set("model", options.model);
    if (options.language) url.searchParams.set("language", options.language);
    if (!options.onProgress) return JSON.parse(await this.#upload(url, recording, options)) as Transcript;
    url.searchParams.set("stream", "true");
    const lines = new Lines(options.onProgress);
    lines.take(await this.#upload(url, recording, options, (text) => lines.take(text)));
    return lines.transcript();
  }

  /** Status of the server: its models and the number of open streams. */
  async status(): Promise<Status> {
    const answer = await this.#fetch(this.#at("/health"), {});
    return JSON.parse(answer) as Status;
  }

  /** Metrics of the server in the text format of Prometheus. */
  metrics(): Promise<string> {
    return this.#fetch(this.#at("/metrics"), {});
  }

  #at(path: string): URL {
    const url = new URL(this.url);
    url.protocol = url.protocol.replace("ws", "http");
    url.pathname = url.pathname.replace(/\/$/, "") + path;
    return url;
  }

  get #headers(): Record<string, string> {
    return this.#key === null ? {} : { Authorization: `Bearer ${this.#key}` };
  }

  /** `onText`: called with all text received so far. Browsers only. */
  #upload(
    url: URL,
    recording: Blob | ArrayBuffer | Uint8Array,
    options: TranscribeOptions,
    onText?: (text: string) => void,
  ): Promise<string> {
    const body = recording as Blob | ArrayBuffer;
    if (!(options.onUpload || onText) || typeof XMLHttpRequest === "undefined") {
      return this.#fetch(url, { method: "POST", body, ...(options.signal ? { signal: options.signal } : {}) });
    }
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // `fetch` does not report upload progress
      request.open("POST", url);
      for (const [name, value] of Object.entries(this.#headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => options.onUpload?.(event.total ? event.loaded / event.total : 0);
      request.onprogress = () => request.status < 300 && onText?.(request.responseText);
      request.onload = () => {
        if (request.status < 300) resolve(request.responseText);
        else reject(told(request.status, request.responseText));
      };
      request.onerror = () => reject(new CannotConnect(`${url.origin} cannot be reached`));
      request.onabort = () => reject(new ConureError("the upload was stopped", "aborted"));
      options.signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.send(body);
    });
  }

  async #fetch(url: URL, init: RequestInit): Promise<string> {
    let answer: Response;
    try {
      answer = await fetch(url, { ...init, headers: this.#headers });
    } catch (error) {
      if (init.signal?.aborted) throw new ConureError("the upload was stopped", "aborted");
      throw new CannotConnect(`${url.origin} cannot be reached: ${(error as Error).message}`);
    }
    const text = await answer.text();
    if (!answer.ok) throw told(answer.status, text);
    return text;
  }
}

/** Parses the progress lines of a transcription; the last line is the transcript or an error. */
class Lines {
  #taken = 0;
  #transcript: Transcript | null = null;
  #error: ConureError | null = null;

  constructor(private readonly onProgress: (part: number) => void) {}

  /** `text`: all text received so far. */
  take(text: string): void {
    for (let end = text.indexOf("\n", this.#taken); end >= 0; end = text.indexOf("\n", this.#taken)) {
      const said = JSON.parse(text.slice(this.#taken, end)) as Line;
      this.#taken = end + 1;
      if (said.type === "transcript") this.#transcript = said;
      else if (said.type === "error") this.#error = refusal(said);
      else if (said.of) this.onProgress(Math.min(1, said.seconds / said.of));
    }
  }

  transcript(): Transcript {
    if (this.#error) throw this.#error;
    if (!this.#transcript) throw new ConureError("the server hung up before it was done", "incomplete");
    return this.#transcript;
  }
}

type Line =
  | { type: "progress"; seconds: number; of: number | null }
  | ({ type: "transcript" } & Transcript)
  | { type: "error"; code: string; message: string; hint: string | null; retry_after: number | null };

/** The error of an unsuccessful HTTP response: from its body, else from its status. */
function told(status: number, body: string): ConureError {
  try {
    const { error } = JSON.parse(body) as { error?: { message: string; code: string } };
    if (error) return refusal(error);
  } catch {
    // the body is not JSON: it was written by a proxy
  }
  return new ConureError(`the server answered HTTP ${status}`, `http_${status}`, "is it a Conure server?");
}
