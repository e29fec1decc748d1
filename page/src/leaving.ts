/** Asks before the page is left while something would be lost by it. */

import { computed, effect } from "@preact/signals";
import * as listening from "./listening";
import { isWorking, recordings } from "./recordings";
import * as spoken from "./spoken";

const wouldLose = computed(
  () =>
    listening.isOpen.value ||
    isWorking.value ||
    !spoken.isSafe.value ||
    recordings.value.some(({ transcript, writer }) => transcript.value && !writer.isSafe.value),
);

/** From now on. */
export function guardLeaving(): void {
  const ask = (event: BeforeUnloadEvent) => event.preventDefault();
  effect(() => {
    // A page that always listens for this is not kept by browsers for "back".
    if (wouldLose.value) addEventListener("beforeunload", ask);
    else removeEventListener("beforeunload", ask);
  });
  addEventListener("pagehide", spoken.flush);
  document.addEventListener("visibilitychange", spoken.flush);
}
