/** What another page or process takes to hear the rest of a stream; it is a secret, and can be written as JSON. */
export interface Ticket {
  token: string;
  /** Of the last event that was read. */
  seq: number;
  /** Seconds and utterances of the stream before the server's own began. */
  before: { seconds: number; utterances: number };
}
