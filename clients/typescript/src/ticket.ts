/** Lets another page or process resume a stream. It is a secret, and can be stored as JSON. */
export interface Ticket {
  token: string;
  /** Of the last event that was read. */
  seq: number;
  /** Seconds and utterances of the stream before the server's own began. */
  before: { seconds: number; utterances: number };
}
