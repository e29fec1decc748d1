/** Audio since the last final, for replay to a server that has lost the stream. */

const MOST_SECONDS = 300;

export class History {
  /** Oldest first. */
  parts: Uint8Array[] = [];
  /** Whether all audio since the last final is kept. */
  isComplete: boolean;
  #first = 0;
  #held = 0;

  /** `rate`: frames per second; null for audio that cannot be split (a container), which is not kept. */
  constructor(
    private readonly rate: number | null,
    private readonly frameBytes: number,
  ) {
    this.isComplete = rate !== null;
  }

  /** Stream time of the first byte kept, in seconds. */
  get start(): number {
    return this.rate ? this.#first / this.frameBytes / this.rate : 0;
  }

  put(bytes: Uint8Array): void {
    if (!this.rate) return;
    this.parts.push(bytes);
    this.#held += bytes.length;
    if (this.#held > MOST_SECONDS * this.rate * this.frameBytes) {
      this.isComplete = false;
      this.#drop(this.parts[0]!.length);
    }
  }

  /** Drops audio before `seconds`: its transcript is final. */
  forget(seconds: number): void {
    if (!this.rate) return;
    const place = Math.floor(seconds * this.rate) * this.frameBytes;
    this.#drop(Math.min(Math.max(place - this.#first, 0), this.#held));
    if (this.#first >= place) this.isComplete = true;
  }

  #drop(bytes: number): void {
    this.#first += bytes;
    this.#held -= bytes;
    while (bytes > 0) {
      const part = this.parts[0]!;
      if (part.length > bytes) {
        this.parts[0] = part.subarray(bytes);
        return;
      }
      bytes -= part.length;
      this.parts.shift();
    }
  }
}
