/** The microphone of a browser as PCM packets with their level. */

import type { Packet } from "./packets.js";
import { recordTrack, recordWorklet, type Recording } from "./recording.js";

export interface MicrophoneOptions {
  /** As in `enumerateDevices`; default: the browser's preferred device. */
  deviceId?: string;
  /** URL of the AudioWorklet module, for browsers that need it; the package contains it as `recorder.js`. */
  worklet: string | URL;
  /** Called with PCM16 at `Microphone.sampleRate` about every 40 ms. */
  onAudio: (samples: Int16Array) => void;
  /** Called with the level (RMS) of each packet, from 0 to 1. */
  onLevel?: (level: number) => void;
  /** Called when the device is disconnected. */
  onEnded?: () => void;
}

export class Microphone {
  private constructor(
    private readonly recording: Recording,
    private readonly media: MediaStream,
  ) {}

  /** Throws the errors of `getUserMedia`: NotAllowedError, NotFoundError, NotReadableError ... */
  static async open(options: MicrophoneOptions): Promise<Microphone> {
    if (!navigator.mediaDevices) throw new DOMException("a microphone needs https, or localhost", "SecurityError");
    const media = await navigator.mediaDevices.getUserMedia({
      audio: {
        channelCount: 1,
        echoCancellation: false, // processing for human listeners lowers recognition accuracy
        noiseSuppression: false,
        autoGainControl: false,
        ...(options.deviceId ? { deviceId: { exact: options.deviceId } } : {}),
      },
    });
    const [track] = media.getAudioTracks();
    const onEnded = () => options.onEnded?.();
    const give = ({ samples, level }: Packet) => {
      options.onAudio(samples);
      options.onLevel?.(level);
    };
    try {
      const recording = (await recordTrack(track!, give, onEnded)) ?? (await recordWorklet(media, options.worklet, give));
      track!.addEventListener("ended", onEnded);
      return new Microphone(recording, media);
    } catch (error) {
      media.getTracks().forEach((each) => each.stop());
      throw error;
    }
  }

  get sampleRate(): number {
    return this.recording.sampleRate;
  }

  /** Name of the device. */
  get label(): string {
    return this.media.getAudioTracks()[0]?.label ?? "";
  }

  pause(): Promise<void> {
    return this.recording.pause();
  }

  resume(): Promise<void> {
    return this.recording.resume();
  }

  async close(): Promise<void> {
    this.media.getTracks().forEach((track) => track.stop());
    await this.recording.close();
  }
}
