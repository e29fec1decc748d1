// Made of the server's own messages (conure/client/protocol.py) by `python -m tools.typescript`.

/** What ends an utterance, in seconds; null switches a reason off, what is left out stays as the server has it. */
export interface Endpointing {
  silence?: number | null;
  end_token?: number | null;
  blanks?: number | null;
  longest?: number | null;
  /** Probability of speech from which on the speech detector is believed. */
  speech?: number;
}

/** Finals from another, more accurate model than the partials. */
export interface Finals {
  model: string;
  /** A final that took longer comes from the fast model. */
  budget_ms?: number;
}

export interface Hello {
  type: "hello";
  stream_id?: number | string | null;
  sample_rate?: number;
  /** pcm16, f32, mulaw, alaw, or `container` for Ogg, WebM, WAV and what else a file may be. */
  encoding?: string;
  channels?: number;
  /** Of the server, where a connection cannot carry it otherwise: over TCP. */
  key?: string | null;
}

/** Before the first audio; after it, endpointing alone may change. */
export interface Config {
  type: "config";
  events?: boolean;
  model?: string | null;
  latency_ms?: number | null;
  language?: string | null;
  endpointing?: Endpointing | null;
  finals?: Finals | null;
  partials?: boolean;
  words?: boolean;
  /** Whether `lag` is told, once a second. */
  lag?: boolean;
  sample_rate?: number | null;
  encoding?: string | null;
  channels?: number | null;
}

/** First message of a connection that goes on with the stream of a broken one. */
export interface Resume {
  type: "resume";
  token: string;
  /** Number of the last event that was read; those after it are sent again. */
  seq?: number;
}

export interface Audio {
  type: "audio";
  /** Base64 in JSON, bytes in msgpack. */
  data?: string;
  /** Numbers from -1 to 1 instead of `data`. */
  samples?: number[] | null;
  encoding?: string | null;
  /** That was all, as `close`. */
  final?: boolean;
}

export interface Finalize {
  type: "finalize";
  id?: number;
}

export interface Close {
  type: "close";
}

/** The rest need not be transcribed. */
export interface Cancel {
  type: "cancel";
}

export interface Ping {
  type: "ping";
  id?: number | null;
}

export interface Word {
  text: string;
  start?: number | null;
  end?: number | null;
  confidence?: number | null;
  speaker?: string | null;
}

/** The stream is there. */
export interface Ready {
  type: "ready";
  stream_id: number | string;
  /** For `resume`. */
  token: string;
  /** How long a broken connection may stay away. */
  resume_seconds: number;
  model: string;
  latency_ms: number;
  /** Bytes of audio the server has (4 for each of `samples`); after `resume` a client goes on from there. */
  received: number;
}

/** So much audio is safe on the server's side: about once a second, so that a client can forget it. */
export interface Received {
  type: "received";
  received: number;
}

export interface SpeechStarted {
  type: "speech_started";
  seq: number;
  utterance: number;
  at: number;
}

export interface Partial {
  type: "partial";
  seq: number;
  utterance: number;
  /** Will not change, and be what the final begins with unless finals come from another model. */
  stable: string;
  /** May change. The text is `stable` and `tail` one after the other. */
  tail: string;
  /** Audio before this has been worked in. */
  until: number;
}

/** The speaker has finished; the final follows. */
export interface UtteranceEnd {
  type: "utterance_end";
  seq: number;
  utterance: number;
  at: number;
  reason: string;
}

export interface Final {
  type: "final";
  seq: number;
  utterance: number;
  text: string;
  start: number;
  end: number;
  /** silence, end_token, blanks, length, asked (finalize), closed. */
  reason: string;
  model: string;
  confidence: number | null;
  language: string | null;
  words: Word[] | null;
}

/** Everything sent before that `finalize` is in the finals before this. */
export interface Marker {
  type: "marker";
  seq: number;
  id: number;
}

/** How late live audio is. What was sent before it would have been spoken is not. */
export interface Lag {
  type: "lag";
  seq: number;
  seconds: number;
}

export interface Warned {
  type: "warning";
  seq: number;
  code: string;
  message: string;
}

export interface Finished {
  type: "finished";
  seq: number;
  /** Audio that was received and transcribed. */
  seconds: number;
  /** What of the audio could not be read. */
  problems: string[];
}

export interface Failed {
  type: "failed";
  seq: number;
  code: string;
  message: string;
  hint: string | null;
  retry_after: number | null;
}

export interface Cancelled {
  type: "cancelled";
  seq: number;
}

/** The first message over TCP, and at the WebSocket `/`, before the client has said anything. */
export interface Greeting {
  type: "hello";
  /** Of results, where the client does not choose one in its own `hello`. */
  stream_id: number;
  sample_rate: number;
}

/** A message was not understood, or not meant; the stream goes on unless the connection is closed after it. */
export interface Error {
  type: "error";
  message: string;
  code: string;
  hint: string | null;
  retry_after: number | null;
}

export interface Pong {
  type: "pong";
  id?: number | null;
}

/** For clients that did not ask for events. */
export interface Result {
  type: "result";
  stream_id: number | string;
  /** Of the stream so far. */
  text: string;
  /** New ones. */
  token_ids: number[];
  confidence_scores: (number | null)[];
  /** The last result of the stream. */
  is_final: boolean;
  last_state: "silence" | "speech" | null;
  turn_detection: "end_of_utterance" | "pause" | "running" | "start_of_utterance";
}

export type FromClient = Hello | Config | Resume | Audio | Finalize | Close | Cancel | Ping;

export type FromServer = Greeting | Ready | Received | SpeechStarted | Partial | UtteranceEnd | Final | Marker | Lag | Warned | Finished | Failed | Cancelled | Error | Pong | Result;
