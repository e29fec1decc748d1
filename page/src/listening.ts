/** What the live view knows and does: a microphone, a stream, and what was heard. Knows nothing of how it looks. */

import type { Event, Final, Partial, Stream } from "@conure/client";
import { Microphone } from "@conure/client/microphone";
import { batch, computed, signal } from "@preact/signals";
import { advice, client } from "./server";
import type { Paragraph, Word } from "./transcript";

export type State = "idle" | "starting" | "listening" | "paused" | "away" | "ending";

export interface Utterance {
  number: number;
  start: number;
  end: number;
  /** Will not change. */
  stable: string;
  /** May change. */
  tail: string;
  /** Of a final. */
  words: Word[] | null;
}

export interface Options {
  model: string;
  latencyMs: number | null;
  language: string;
  deviceId: string;
}

const RATES = { lowest: 8000, highest: 48000 };

export const state = signal<State>("idle");
export const utterances = signal<Utterance[]>([]);
export const level = signal(0);
/** Seconds that the transcript is behind; null where nothing is known. */
export const lag = signal<number | null>(null);
/** What went wrong, or is worth knowing, as a sentence. */
export const notice = signal<{ text: string; isBad: boolean } | null>(null);
/** What the server said of the stream. */
export const agreed = signal<{ model: string; latencyMs: number } | null>(null);
/** The last final, for those who hear the page rather than see it. */
export const spoken = signal("");
export const isOpen = computed(() => state.value !== "idle");

export const paragraphs = computed<Paragraph[]>(() =>
  utterances.value.flatMap(({ stable, tail, start, end, words }) => {
    const text = (stable + tail).trim();
    return text ? [{ text, start, end, words: words ?? [] }] : [];
  }),
);

let stream: Stream | null = null;
let microphone: Microphone | null = null;
/** Seconds and utterances of the sessions before this one. */
let before = { seconds: 0, utterances: 0 };
let heard = 0;

export async function start(options: Options): Promise<void> {
  if (state.value !== "idle") return;
  batch(() => {
    state.value = "starting";
    notice.value = null;
    lag.value = null;
  });
  const waiting: Int16Array[] = [];
  let send = (samples: Int16Array) => void waiting.push(samples);
  try {
    microphone = await Microphone.open({
      worklet: new URL("./assets/recorder.js", document.baseURI),
      onAudio: (samples) => send(samples),
      onLevel: (loudness) => (level.value = loudness),
      onEnded: () => {
        say("The microphone was taken away. What was said is here; connect it and start again.");
        void stop();
      },
      ...(options.deviceId ? { deviceId: options.deviceId } : {}),
    });
    const sampleRate = Math.min(Math.max(microphone.sampleRate, RATES.lowest), RATES.highest);
    const opened = await client().stream({
      sampleRate,
      lag: true,
      onConnection,
      ...(options.model ? { model: options.model } : {}),
      ...(options.latencyMs ? { latencyMs: options.latencyMs } : {}),
      ...(options.language ? { language: options.language } : {}),
    });
    stream = opened;
    send = (samples) => void opened.send(samples).catch(() => undefined); // how it ended is told where events are read
    waiting.forEach(send);
    batch(() => {
      state.value = "listening";
      agreed.value = { model: opened.ready.model, latencyMs: opened.ready.latency_ms };
    });
    void follow(opened);
  } catch (error) {
    say(advice(error));
    await end();
  }
}

export async function pause(): Promise<void> {
  if (state.value !== "listening") return;
  state.value = "paused";
  level.value = 0;
  await microphone?.pause();
  stream?.finalize();
}

export async function goOn(): Promise<void> {
  if (state.value !== "paused") return;
  await microphone?.resume();
  state.value = "listening";
}

/** What was said is heard to its end. */
export async function stop(): Promise<void> {
  if (!stream || state.value === "ending") return;
  state.value = "ending";
  level.value = 0;
  await microphone?.close();
  microphone = null;
  stream.close();
}

export function clear(): void {
  utterances.value = [];
  spoken.value = "";
  before = { seconds: 0, utterances: 0 };
}

export function say(text: string, isBad = true): void {
  notice.value = { text, isBad };
}

async function follow(events: Stream): Promise<void> {
  try {
    for await (const event of events) take(event);
  } catch (error) {
    say(advice(error));
  }
  await end();
}

async function end(): Promise<void> {
  await microphone?.close();
  microphone = stream = null;
  const last = utterances.value.at(-1);
  before = { seconds: Math.max(heard + before.seconds, last?.end ?? 0), utterances: last?.number ?? 0 };
  heard = 0;
  batch(() => {
    level.value = 0;
    lag.value = null;
    state.value = "idle";
  });
}

function take(event: Event): void {
  switch (event.type) {
    case "partial":
      heard = event.until;
      put(partial(event));
      break;
    case "final":
      put(final(event));
      if (event.text) spoken.value = event.text;
      break;
    case "lag":
      lag.value = event.seconds;
      break;
    case "warning":
      say(`The server warns: ${event.message}.`);
      break;
    case "finished":
      heard = event.seconds;
      break;
  }
}

function partial({ utterance, stable, tail, until }: Partial): Utterance {
  const known = utterances.value.find(({ number }) => number === utterance + before.utterances);
  const end = until + before.seconds;
  return { number: utterance + before.utterances, start: known?.start ?? end, end, stable, tail, words: null };
}

function final({ utterance, text, start, end, words }: Final): Utterance {
  const at = (time: number | null | undefined) => (time == null ? null : time + before.seconds);
  return {
    number: utterance + before.utterances,
    start: start + before.seconds,
    end: end + before.seconds,
    stable: text,
    tail: "",
    words: (words ?? []).map((word) => ({
      text: word.text,
      start: at(word.start),
      end: at(word.end),
      confidence: word.confidence ?? null,
    })),
  };
}

/** In the place of what was known of the utterance; one without words is none. */
function put(utterance: Utterance): void {
  const others = utterances.value.filter(({ number }) => number !== utterance.number);
  if (!utterance.stable && !utterance.tail) utterances.value = others;
  else utterances.value = [...others, utterance].sort((a, b) => a.number - b.number);
}

function onConnection(connection: { state: string }): void {
  if (connection.state === "away") {
    if (state.value === "listening") state.value = "away";
    say("The connection is lost. It is coming back by itself; keep talking, nothing is lost.", false);
  } else if (connection.state === "resumed") {
    if (state.value === "away") state.value = "listening";
    say("The connection is back, and nothing was lost.", false);
  }
}
