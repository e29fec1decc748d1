/** AudioWorklet processor: runs on the audio thread, so it is a separate module. */

import { Packets } from "./packets.js";

declare const sampleRate: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, kind: new () => AudioWorkletProcessor): void;

class Recorder extends AudioWorkletProcessor {
  readonly #packets = new Packets(sampleRate, (packet) => this.port.postMessage(packet, [packet.samples.buffer]));

  process(inputs: Float32Array[][]): boolean {
    this.#packets.push(inputs[0] ?? []);
    return true;
  }
}

registerProcessor("conure-recorder", Recorder as never);
