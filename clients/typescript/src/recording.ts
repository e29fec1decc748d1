/** Two ways to read samples of a microphone in a browser: track processor and AudioWorklet. */

import { Packets, type Packet } from "./packets.js";

export interface Recording {
  readonly sampleRate: number;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Call after the track has ended. */
  close(): Promise<void>;
}

type Give = (packet: Packet) => void;

/** MediaStreamTrackProcessor is missing in lib.dom. */
interface TrackProcessor {
  readonly readable: ReadableStream<AudioData>;
}
type MakeTrackProcessor = new (init: { track: MediaStreamTrack; maxBufferSize: number }) => TrackProcessor;

/** Buffer for a busy page: frames of 10 ms. */
const KEPT = 3000;
/** Timeout for the first frame of a device, in milliseconds. */
const PATIENCE = 5000;

/** Reads the unprocessed frames of the track: none is dropped or stretched under load. Chromium only. */
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
    close: () => followed, // after the buffered frames
  };

  async function follow(): Promise<void> {
    for (let frame: AudioData | undefined = first; frame; frame = (await frames.read()).value) {
      const fits = frame.sampleRate === sampleRate;
      if (fits && !isPaused) packets.push(channelsOf(frame));
      frame.close();
      if (fits) continue;
      await frames.cancel();
      return onEnded(); // the browser switched to another device
    }
    packets.end();
  }
}

/** Records through an AudioWorklet, which every browser supports. */
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
