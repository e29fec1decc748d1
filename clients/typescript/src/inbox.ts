/** Queue of received events; ends normally or with an error. */

export class Inbox<Event> implements AsyncIterableIterator<Event> {
  #events: Event[] = [];
  #ended = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;

  get isOver(): boolean {
    return this.#ended;
  }

  put(event: Event): void {
    this.#events.push(event);
    this.#wake?.();
  }

  end(error: Error | null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  /** Throws the error that ended the stream, after the last event. */
  async next(): Promise<IteratorResult<Event>> {
    while (this.#events.length === 0) {
      if (this.#error) {
        const error = this.#error;
        this.#error = null;
        throw error;
      }
      if (this.#ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return { done: false, value: this.#events.shift()! };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
