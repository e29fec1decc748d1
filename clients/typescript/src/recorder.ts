/** Runs where the browser makes audio: packets of PCM16 about 40 ms long, and how loud they are. A module of its own. */

declare const sampleRate: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, kind: new () => AudioWorkletProcessor): void;

const PACKET_SECONDS = 0.04;

class Recorder extends AudioWorkletProcessor {
  #samples = new Int16Array(Math.round(PACKET_SECONDS * sampleRate));
  #count = 0;
  #energy = 0;

  process(inputs: Float32Array[][]): boolean {
    const channels = inputs[0] ?? [];
    const length = channels[0]?.length ?? 0;
    for (let index = 0; index < length; index++) {
      let sum = 0;
      for (const channel of channels) sum += channel[index]!;
      this.#push(Math.max(-1, Math.min(1, sum / channels.length)));
    }
    return true;
  }

  #push(sample: number): void {
    this.#energy += sample * sample;
    this.#samples[this.#count++] = Math.round(sample * 32767);
    if (this.#count < this.#samples.length) return;
    const samples = this.#samples.slice();
    this.port.postMessage({ samples, level: Math.sqrt(this.#energy / samples.length) }, [samples.buffer]);
    this.#count = this.#energy = 0;
  }
}

registerProcessor("conure-recorder", Recorder as never);

export {};
