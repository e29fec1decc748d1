/** Tells on every view, in the title and in the icon that the microphone is open, and stops it. */

import { computed, effect } from "@preact/signals";
import type { JSX } from "preact";
import * as listening from "./listening";

const SENTENCES: Partial<Record<listening.State, string>> = {
  starting: "The microphone is being opened.",
  listening: "The microphone is on. What is said is being transcribed.",
  paused: "The microphone is open, but paused. What is said now is not heard.",
  away: "The microphone is on. The connection is lost, and what is said is kept until it is back.",
};

export function MicrophoneBar({ isHidden }: { isHidden: boolean }): JSX.Element {
  const state = listening.state.value;
  const sentence = isHidden ? undefined : SENTENCES[state];
  return (
    <div class={sentence ? "microphone-bar shown" : "microphone-bar"}>
      <p role="status">{sentence}</p>
      {sentence && (
        <>
          <a href="#live">Show it</a>
          <button type="button" onClick={listening.stop} disabled={state === "starting"}>
            Stop listening
          </button>
        </>
      )}
    </div>
  );
}

const titleBefore = computed(() => {
  if (!listening.hasMicrophone.value) return "";
  return listening.state.value === "paused" ? "● Paused, microphone open – " : "● Listening – ";
});

/** From now on. */
export function showInTab(): void {
  const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]')!;
  const [title, plain, red] = [document.title, icon.href, new URL("./assets/listening.svg", document.baseURI).href];
  effect(() => {
    document.title = titleBefore.value + title;
    icon.href = titleBefore.value ? red : plain;
  });
}
