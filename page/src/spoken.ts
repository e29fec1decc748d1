/** The transcript of the live view, kept in the browser as it grows, and taken up again after a reload. */

import { computed, signal } from "@preact/signals";
import { Writer, entries, newEntry, paragraphsOf as partsOf, takeOver, type Entry, type Session } from "./keeping";
import { remember, remembered } from "./storage";
import { hasClosed, openTabs, tab } from "./tabs";
import type { Paragraph, Word } from "./transcript";

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

const OWN = "conure-transcript";
/** Milliseconds between two writes of words that may still change. */
const OFTEN = 1000;
/** Milliseconds since it was written in which a transcript of a closed tab may have words that are still to come. */
const RECENT = 120_000;

export const utterances = signal<Utterance[]>([]);
/** The last final, for those who hear the page rather than see it. */
export const spoken = signal("");
export const paragraphs = computed<Paragraph[]>(() =>
  utterances.value.flatMap((utterance) => (isSaid(utterance) ? [paragraphOf(utterance)] : [])),
);
/** Whether the browser keeps all of it. */
export const isSafe = computed(() => writer.value?.isSafe.value ?? true);
/** Which of the kept transcripts it is. */
export const id = computed(() => writer.value?.entry.id ?? null);

const writer = signal<Writer | null>(null);

/** A stream begins, and may be heard to its end by another page. */
export function expect(session: Session): void {
  writer.value ??= begin();
  writer.value.entry.session = session;
  writer.value.write();
}

/** In the place of what was known of the utterance; one without words is none. `session`: how to hear what follows. */
export function put(utterance: Utterance, session: Session): void {
  const others = utterances.value.filter(({ number }) => number !== utterance.number);
  const isThere = isSaid(utterance);
  if (!isThere && others.length === utterances.value.length) return;
  utterances.value = isThere ? [...others, utterance].sort((a, b) => a.number - b.number) : others;
  const { entry } = (writer.value ??= begin());
  entry.session = session;
  entry.seconds = Math.max(entry.seconds, utterance.end);
  if (utterance.words && isThere) spoken.value = utterance.stable;
  writer.value.put(utterance.number, isThere ? paragraphOf(utterance) : null, utterance.words ? 0 : OFTEN);
}

/** Nothing follows any more. */
export function finish(model: string | null): void {
  if (!writer.value) return;
  if (!paragraphs.value.length) {
    void writer.value.drop();
    return clear();
  }
  writer.value.entry.session = null;
  writer.value.entry.model = model ?? writer.value.entry.model;
  writer.value.write();
}

/** Begins an empty one; what was said stays among those that are kept. */
export function clear(): void {
  utterances.value = [];
  spoken.value = "";
  writer.value = null;
  remember(OWN, "");
}

/** Discards what the browser has kept of it. */
export async function drop(): Promise<void> {
  await writer.value?.drop();
}

/** Writes what may still change at once: the page may be about to go. */
export function flush(): void {
  if (writer.value && !writer.value.isSafe.value) writer.value.write();
}

/** What this tab showed before it was reloaded, else what a tab that was closed has not heard to its end. */
export async function restore(): Promise<{ entry: Entry; session: Session | null } | null> {
  const found = await left();
  const entry = found && (await takeOver(found));
  if (!entry) return null;
  const parts = await partsOf(entry.id);
  if (writer.value) return null; // somebody speaks already
  utterances.value = [...parts].map(([number, paragraph]) => utteranceOf(number, paragraph));
  writer.value = new Writer(entry, false);
  remember(OWN, entry.id);
  return { entry, session: entry.session };
}

async function left(): Promise<Entry | null> {
  const all = (await entries()).filter(({ kind }) => kind === "live");
  const own = all.find(({ id }) => id === remembered(OWN));
  if (own) return (await hasClosed(own.tab)) ? own : null; // a copy of a tab has what the tab remembers
  const used = await openTabs();
  const isLeft = (entry: Entry) => entry.session && entry.tab !== tab && !used.has(entry.tab) && Date.now() - entry.changed < RECENT;
  return all.find(isLeft) ?? null;
}

function begin(): Writer {
  const entry = newEntry("live");
  remember(OWN, entry.id);
  return new Writer(entry);
}

function isSaid({ stable, tail }: Utterance): boolean {
  return Boolean((stable + tail).trim());
}

function paragraphOf({ stable, tail, start, end, words }: Utterance): Paragraph {
  return { text: (stable + tail).trim(), start, end, words: words ?? [] };
}

function utteranceOf(number: number, { text, start, end, words }: Paragraph): Utterance {
  return { number, start, end, stable: text, tail: "", words: words.length ? words : null };
}

