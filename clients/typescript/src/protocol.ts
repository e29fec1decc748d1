// Made of the server's own messages (conure/client/protocol.py) by `python -m tools.typescript`.

/** Endpointing rules, in seconds. null disables a rule; a missing field keeps the server's default. */
export interface Endpointing {
  silence?: number | null;
  end_token?: number | null;
  blanks?: number | null;
  longest?: number | null;
  /** Threshold of the speech detector, as a probability. */
  speech?: number;
}

/** Finals from a second, more accurate model than that of the partials. */
export interface Finals {
  model: string;
  /** If the second model needs longer than this, the final of the fast model is used. */
  budget_ms?: number;
}

export interface Hello {
  type: "hello";
  stream_id?: number | string | null;
  sample_rate?: number;
  /** pcm16, f32, mulaw, alaw, or `container` for Ogg, WebM, WAV and other file formats. */
  encoding?: string;
  channels?: number;
  /** API key, for transports without headers: TCP. */
  key?: string | null;
}

/** Options of the stream, sent before the first audio; afterwards only `endpointing` may change. */
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
  /** Whether the server sends `lag` events, once per second. */
  lag?: boolean;
  sample_rate?: number | null;
  encoding?: string | null;
  channels?: number | null;
}

/** First message of a connection that resumes a stream after its connection broke. */
export interface Resume {
  type: "resume";
  token: string;
  /** Number of the last event that was read; later ones are sent again. */
  seq?: number;
}

export interface Audio {
  type: "audio";
  /** Base64 in JSON, bytes in msgpack. */
  data?: string;
  /** Samples from -1 to 1, instead of `data`. */
  samples?: number[] | null;
  encoding?: string | null;
  /** Ends the audio, like `close`. */
  final?: boolean;
}

export interface Finalize {
  type: "finalize";
  id?: number;
}

export interface Close {
  type: "close";
}

/** Discards what has not been transcribed. */
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

/** The stream is open. */
export interface Ready {
  type: "ready";
  stream_id: number | string;
  /** For `resume`. */
  token: string;
  /** How long a stream may be resumed after its connection broke. */
  resume_seconds: number;
  model: string;
  latency_ms: number;
  /** Bytes of audio that the server has (4 for each of `samples`); after `resume` the client continues from there. */
  received: number;
}

/** Acknowledges audio, about once per second, so that the client can drop it from its buffer. */
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
  /** Will not change. The final begins with it, unless finals come from a second model. */
  stable: string;
  /** May change. The text is `stable + tail`. */
  tail: string;
  /** Audio before this time has been processed. */
  until: number;
}

/** The utterance has ended; its final follows. */
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
  /** Why the utterance ended: `silence`, `end_token`, `blanks`, `length`, `asked` (a `finalize`) or `closed`. */
  reason: string;
  model: string;
  confidence: number | null;
  language: string | null;
  words: Word[] | null;
}

/** Answers `finalize`: all audio sent before it is in the finals before this event. */
export interface Marker {
  type: "marker";
  seq: number;
  id: number;
}

/** How late the processing of live audio is. Audio sent faster than real time does not count as late. */
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
  /** Duration of the audio that was received and transcribed. */
  seconds: number;
  /** Parts of the audio that could not be read. */
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

/** The server's first message over TCP and at the WebSocket `/`, sent before any message of the client. */
export interface Greeting {
  type: "hello";
  /** Id in `result` messages, unless the client chooses one in its own `hello`. */
  stream_id: number;
  sample_rate: number;
}

/** A message was invalid or cannot be processed. The stream continues unless the connection is closed afterwards. */
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

/** The text so far, for clients that did not ask for events. */
export interface Result {
  type: "result";
  stream_id: number | string;
  /** Text of the whole stream so far. */
  text: string;
  /** New tokens since the last result. */
  token_ids: number[];
  confidence_scores: (number | null)[];
  /** Whether this is the last result of the stream. */
  is_final: boolean;
  last_state: "silence" | "speech" | null;
  turn_detection: "end_of_utterance" | "pause" | "running" | "start_of_utterance";
}

export type FromClient = Hello | Config | Resume | Audio | Finalize | Close | Cancel | Ping;

export type FromServer = Greeting | Ready | Received | SpeechStarted | Partial | UtteranceEnd | Final | Marker | Lag | Warned | Finished | Failed | Cancelled | Error | Pong | Result;
