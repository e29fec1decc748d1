export { Client } from "./client.js";
export type { ClientOptions, ServerModel, Status, TranscribeOptions, Transcript, TranscriptSegment, TranscriptWord } from "./client.js";
export { CannotConnect, ConnectionLost, ConureError, ServerError } from "./errors.js";
export type { Endpointing, Final, FromServer, Lag, Marker, Partial, Ready, SpeechStarted, UtteranceEnd, Word } from "./protocol.js";
export { Stream, type Connection, type Event, type StreamOptions } from "./stream.js";
export type { Ticket } from "./ticket.js";
