/** The microphone of a browser as PCM, through an AudioWorklet, and how loud it is. */

export interface MicrophoneOptions {
  /** As in `enumerateDevices`; without it the one that the browser prefers. */
  deviceId?: string;
  /** Where the worklet is served from; the package has it as `recorder.js`. */
  worklet: string | URL;
  /** Called with PCM16 at `Microphone.sampleRate`, about every 40 ms. */
  onAudio: (samples: Int16Array) => void;
  /** Called with the loudness of each packet, from 0 to 1. */
  onLevel?: (level: number) => void;
  /** Called when the device goes away. */
  onEnded?: () => void;
}

export class Microphone {
  private constructor(
    private readonly context: AudioContext,
    private readonly media: MediaStream,
    private readonly node: AudioWorkletNode,
  ) {}

  /** Throws what `getUserMedia` throws: NotAllowedError, NotFoundError, NotReadableError ... */
  static async open(options: MicrophoneOptions): Promise<Microphone> {
    if (!navigator.mediaDevices) throw new DOMException("a microphone needs https, or localhost", "SecurityError");
    const media = await navigator.mediaDevices.getUserMedia({
      audio: {
        channelCount: 1,
        echoCancellation: false, // what is meant for human ears costs recognisers words
        noiseSuppression: false,
        autoGainControl: false,
        ...(options.deviceId ? { deviceId: { exact: options.deviceId } } : {}),
      },
    });
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(options.worklet);
      const node = new AudioWorkletNode(context, "conure-recorder", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data }: MessageEvent<{ samples: Int16Array; level: number }>) => {
        options.onAudio(data.samples);
        options.onLevel?.(data.level);
      };
      context.createMediaStreamSource(media).connect(node);
      media.getAudioTracks()[0]?.addEventListener("ended", () => options.onEnded?.());
      await context.resume();
      return new Microphone(context, media, node);
    } catch (error) {
      media.getTracks().forEach((track) => track.stop());
      await context.close();
      throw error;
    }
  }

  get sampleRate(): number {
    return this.context.sampleRate;
  }

  /** What the device calls itself. */
  get label(): string {
    return this.media.getAudioTracks()[0]?.label ?? "";
  }

  pause(): Promise<void> {
    return this.context.suspend();
  }

  resume(): Promise<void> {
    return this.context.resume();
  }

  async close(): Promise<void> {
    this.node.port.onmessage = null;
    this.node.disconnect();
    this.media.getTracks().forEach((track) => track.stop());
    await this.context.close();
  }
}
