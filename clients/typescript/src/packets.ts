/** Splits audio into PCM16 packets of about 40 ms and measures their level. */

const PACKET_SECONDS = 0.04;

export interface Packet {
  samples: Int16Array<ArrayBuffer>;
  /** RMS, from 0 to 1. */
  level: number;
}

export class Packets {
  readonly #samples: Int16Array<ArrayBuffer>;
  #count = 0;
  #energy = 0;

  constructor(
    sampleRate: number,
    private readonly give: (packet: Packet) => void,
  ) {
    this.#samples = new Int16Array(Math.round(PACKET_SECONDS * sampleRate));
  }

  /** `channels`: simultaneous samples of each channel; they are mixed. */
  push(channels: Float32Array[]): void {
    const length = channels[0]?.length ?? 0;
    for (let index = 0; index < length; index++) {
      let sum = 0;
      for (const channel of channels) sum += channel[index]!;
      this.#add(Math.max(-1, Math.min(1, sum / channels.length)));
    }
  }

  /** Emits the last, shorter packet. */
  end(): void {
    if (this.#count) this.#give();
  }

  #add(sample: number): void {
    this.#energy += sample * sample;
    this.#samples[this.#count++] = Math.round(sample * 32767);
    if (this.#count === this.#samples.length) this.#give();
  }

  #give(): void {
    this.give({ samples: this.#samples.slice(0, this.#count), level: Math.sqrt(this.#energy / this.#count) });
    this.#count = this.#energy = 0;
  }
}
