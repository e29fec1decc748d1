/** Lets another page or process resume a stream. It is a secret, and can be stored as JSON. */
export interface Ticket {
  token: string;
  /** Number of the last event that was read. */
  seq: number;
  /** Offset of the server's stream: seconds and utterances that came before it. */
  before: { seconds: number; utterances: number };
}
