/** What the live view does: a microphone, a stream, and the words that come of it. Knows nothing of how it looks. */

import type { Event, Final, Partial, Stream } from "@conure/client";
import { Microphone } from "@conure/client/microphone";
import { batch, computed, signal } from "@preact/signals";
import type { Session } from "./keeping";
import { settle, tell, tellBriefly } from "./notices";
import { advice, client, lookAtModels } from "./server";
import * as spoken from "./spoken";
import type { Utterance } from "./spoken";

export type State = "idle" | "starting" | "listening" | "paused" | "away" | "ending";

export interface Options {
  model: string;
  latencyMs: number | null;
  language: string;
  deviceId: string;
}

/** Seconds that a server may take to start anew, with large models, until what is said meanwhile is given up. */
const AWAY = 240;
const RATES = { lowest: 8000, highest: 48000 };
/** Seconds that words may be late before it is worth saying. */
const LATE = 2;
const LATE_SENTENCE = "The server has too much to do, so words come late. It stops listening where they come much too late.";
/** Milliseconds after the last word in which more of them may have been lost with the page. */
const RECENT = 60_000;
/** Milliseconds that what is kept is waited for before one can speak. */
const PATIENCE = 4000;

export const state = signal<State>("idle");
export const level = signal(0);
/** Seconds that the transcript is behind; null where nothing is known. */
export const lag = signal<number | null>(null);
/** What the server said of the stream. */
export const agreed = signal<{ model: string; latencyMs: number } | null>(null);
export const isOpen = computed(() => state.value !== "idle");
/** Whether the browser gives this page the microphone, heard or not. */
export const hasMicrophone = computed(() => !["idle", "ending"].includes(state.value));

let stream: Stream | null = null;
let microphone: Microphone | null = null;
/** Seconds and utterances of the transcript before this stream. */
let before = { seconds: 0, utterances: 0 };
let heard = 0;
let restored: Promise<void> = Promise.resolve();
/** All audio so far is on its way. */
let sent: Promise<void> = Promise.resolve();

/** Shows again what was said before the page was reloaded, and hears what was still to come of it. */
export function restore(): Promise<void> {
  const late = new Promise<void>((resolve) => setTimeout(resolve, PATIENCE)); // some browsers never answer
  return (restored = Promise.race([takeUp(), late]));
}

async function takeUp(): Promise<void> {
  const found = await spoken.restore().catch(() => null); // where nothing can be kept, `keeping` says so
  if (!found || state.value !== "idle") return;
  before = placeOfEnd();
  if (!found.session) return;
  const { ticket, seconds, utterances } = found.session;
  before = { seconds, utterances };
  state.value = "ending";
  try {
    stream = await client().resume(ticket, { lag: true, onConnection });
    stream.close();
    agreed.value = { model: stream.ready.model, latencyMs: stream.ready.latency_ms };
    tellBriefly("outcome", "This page was closed while it listened. What it had heard is here; start again to go on.");
    void follow(stream);
  } catch {
    const isRecent = Date.now() - found.entry.changed < RECENT;
    if (isRecent) tell("outcome", "This page was closed while it listened. The words right before that may be missing.");
    await end();
  }
}

export async function start(options: Options): Promise<void> {
  await restored;
  if (state.value !== "idle") return;
  batch(() => {
    state.value = "starting";
    lag.value = null;
    settle("outcome", "connection", "delay", "warning");
  });
  const waiting: Int16Array[] = [];
  let send = (samples: Int16Array) => void waiting.push(samples);
  try {
    microphone = await Microphone.open({
      worklet: new URL("./assets/recorder.js", document.baseURI),
      onAudio: (samples) => send(samples),
      onLevel: (loudness) => (level.value = loudness),
      onEnded: () => {
        tell("outcome", "The microphone was taken away. What was said is here; connect it and start again.");
        void stop();
      },
      ...(options.deviceId ? { deviceId: options.deviceId } : {}),
    });
    const sampleRate = Math.min(Math.max(microphone.sampleRate, RATES.lowest), RATES.highest);
    const opened = await client().stream({
      sampleRate,
      lag: true,
      awaySeconds: AWAY,
      onConnection,
      ...(options.model ? { model: options.model } : {}),
      ...(options.latencyMs ? { latencyMs: options.latencyMs } : {}),
      ...(options.language ? { language: options.language } : {}),
    });
    stream = opened;
    // A packet that has to wait lets none pass it; how the stream ended is told by `follow`.
    send = (samples) => void (sent = sent.then(() => opened.send(samples)).catch(() => undefined));
    waiting.forEach(send);
    spoken.expect({ ticket: opened.ticket(0), ...before });
    batch(() => {
      state.value = "listening";
      agreed.value = { model: opened.ready.model, latencyMs: opened.ready.latency_ms };
    });
    void follow(opened);
  } catch (error) {
    tell("outcome", advice(error));
    await end();
    void lookAtModels();
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
  await sent;
  stream?.close();
}

export function clear(): void {
  spoken.clear();
  before = { seconds: 0, utterances: 0 };
}

/** Forgets what was said, here and in the browser. */
export async function discard(): Promise<void> {
  const dropped = spoken.drop();
  clear();
  await dropped;
}

async function follow(events: Stream): Promise<void> {
  try {
    for await (const event of events) take(event, { ticket: events.ticket(event.seq), ...before });
  } catch (error) {
    tell("outcome", advice(error));
  }
  await end();
}

async function end(): Promise<void> {
  await microphone?.close();
  microphone = stream = null;
  before = placeOfEnd();
  heard = 0;
  spoken.finish(agreed.value?.model ?? null);
  batch(() => {
    level.value = 0;
    lag.value = null;
    state.value = "idle";
    settle("connection", "delay", "warning");
  });
}

/** Where a stream begins that comes behind all that was said. */
function placeOfEnd(): typeof before {
  const last = spoken.utterances.value.at(-1);
  return { seconds: Math.max(heard + before.seconds, last?.end ?? 0), utterances: last?.number ?? 0 };
}

function take(event: Event, session: Session): void {
  switch (event.type) {
    case "partial":
      heard = event.until;
      spoken.put(partial(event), session);
      break;
    case "final":
      spoken.put(final(event), session);
      break;
    case "lag":
      lag.value = event.seconds;
      if (event.seconds < LATE) settle("delay");
      break;
    case "warning":
      if (event.code === "lag") tell("delay", LATE_SENTENCE);
      else tell("warning", `The server warns: ${event.message}.`);
      break;
    case "finished":
      heard = event.seconds;
      break;
  }
}

function partial({ utterance, stable, tail, until }: Partial): Utterance {
  const known = spoken.utterances.value.find(({ number }) => number === utterance + before.utterances);
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

function onConnection(connection: { state: string }): void {
  if (connection.state === "away") {
    if (state.value === "listening") state.value = "away";
    tell("connection", "The connection is lost. It is coming back by itself; keep talking, nothing is lost.", false);
  } else if (connection.state === "resumed" && stream) {
    if (state.value === "away") state.value = "listening";
    tellBriefly("connection", "The connection is back, and nothing was lost.");
  }
}
