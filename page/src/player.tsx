/** A recording as a waveform that plays. */

import type { JSX } from "preact";
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import WaveSurfer from "wavesurfer.js";
import { clock } from "./time";

interface Props {
  file: File;
  onTime: (seconds: number) => void;
  /** Is given a function that plays from a time on. */
  seek: { current: (seconds: number) => void };
}

const MOST_BYTES = 300e6;
/** Browsers keep a decoded recording in memory: larger ones are played without their waveform. */
const NONCE = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";

export function Player({ file, onTime, seek }: Props): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const wave = useRef<WaveSurfer | null>(null);
  const isPlaying = useSignal(false);
  const seconds = useSignal(0);
  const duration = useSignal(0);
  const fault = useSignal("");
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const made = WaveSurfer.create({
      container: place.current!,
      height: 56,
      barWidth: 2,
      barGap: 1,
      barRadius: 1,
      waveColor: style.getPropertyValue("--wave"),
      progressColor: style.getPropertyValue("--accent"),
      cursorColor: style.getPropertyValue("--text"),
      cspNonce: NONCE,
    });
    wave.current = made;
    made.on("timeupdate", (now) => {
      seconds.value = now;
      onTime(now);
    });
    made.on("ready", (length) => (duration.value = length));
    made.on("play", () => (isPlaying.value = true));
    made.on("pause", () => (isPlaying.value = false));
    made.on("error", () => (fault.value = "This browser cannot play the recording. Its text is below."));
    seek.current = (at) => {
      made.setTime(at);
      void made.play();
    };
    const url = URL.createObjectURL(file);
    const peaks = file.size > MOST_BYTES ? [[0]] : undefined;
    (peaks ? made.load(url, peaks) : made.loadBlob(file)).catch(() => undefined); // `error` tells it
    return () => {
      made.destroy();
      URL.revokeObjectURL(url);
    };
  }, [file]);
  return (
    <div class="player">
      <button
        type="button"
        onClick={() => void wave.current?.playPause()}
        disabled={Boolean(fault.value) || !duration.value}
        aria-label={isPlaying.value ? "Pause" : "Play"}
      >
        {isPlaying.value ? "❚❚" : "▶"}
      </button>
      <div ref={place} class="wave" aria-hidden="true" />
      <span class="facts">
        {clock(seconds.value)} / {clock(duration.value)}
      </span>
      {fault.value && <p class="notice">{fault.value}</p>}
    </div>
  );
}
