/** Two ways in which browsers give the samples of a microphone. */

import { Packets, type Packet } from "./packets.js";

export interface Recording {
  readonly sampleRate: number;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Of a track that has ended. */
  close(): Promise<void>;
}

type Give = (packet: Packet) => void;

/** Of WebCodecs; lib.dom does not have it. */
interface TrackProcessor {
  readonly readable: ReadableStream<AudioData>;
}
type MakeTrackProcessor = new (init: { track: MediaStreamTrack; maxBufferSize: number }) => TrackProcessor;

/** Frames of 10 ms that are kept while the page is too busy to take them. */
const KEPT = 3000;
/** Milliseconds in which a device gives its first frame, if it is to be had. */
const PATIENCE = 5000;

/** The frames of the track as they are: none is dropped or stretched where the machine is busy. Chromium has this. */
export async function recordTrack(track: MediaStreamTrack, give: Give, onEnded: () => void): Promise<Recording | null> {
  const { MediaStreamTrackProcessor } = globalThis as { MediaStreamTrackProcessor?: MakeTrackProcessor };
  if (!MediaStreamTrackProcessor) return null;
  const frames = new MediaStreamTrackProcessor({ track, maxBufferSize: KEPT }).readable.getReader();
  const nothing = new Promise<undefined>((resolve) => setTimeout(resolve, PATIENCE));
  const first = await Promise.race([frames.read().then(({ value }) => value), nothing]);
  if (!first) {
    await frames.cancel();
    throw new DOMException("the microphone gives nothing", "NotReadableError");
  }
  const { sampleRate } = first;
  const packets = new Packets(sampleRate, give);
  let isPaused = false;
  const followed = follow();
  return {
    sampleRate,
    pause: async () => void (isPaused = true),
    resume: async () => void (isPaused = false),
    close: () => followed, // with what was on its way
  };

  async function follow(): Promise<void> {
    for (let frame: AudioData | undefined = first; frame; frame = (await frames.read()).value) {
      const fits = frame.sampleRate === sampleRate;
      if (fits && !isPaused) packets.push(channelsOf(frame));
      frame.close();
      if (fits) continue;
      await frames.cancel();
      return onEnded(); // another device took its place
    }
    packets.end();
  }
}

/** Through an AudioWorklet, which every browser has. */
export async function recordWorklet(media: MediaStream, worklet: string | URL, give: Give): Promise<Recording> {
  const context = new AudioContext({ latencyHint: "interactive" });
  try {
    await context.audioWorklet.addModule(worklet);
    const node = new AudioWorkletNode(context, "conure-recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }: MessageEvent<Packet>) => give(data);
    context.createMediaStreamSource(media).connect(node);
    await context.resume();
    return {
      sampleRate: context.sampleRate,
      pause: () => context.suspend(),
      resume: () => context.resume(),
      close: () => {
        node.port.onmessage = null;
        node.disconnect();
        return context.close();
      },
    };
  } catch (error) {
    await context.close();
    throw error;
  }
}

function channelsOf(frame: AudioData): Float32Array[] {
  return Array.from({ length: frame.numberOfChannels }, (_, planeIndex) => {
    const samples = new Float32Array(frame.numberOfFrames);
    frame.copyTo(samples, { planeIndex, format: "f32-planar" });
    return samples;
  });
}
