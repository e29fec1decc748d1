/**
 * Transcripts that this browser keeps, so that a reload, a closed tab or a crash loses none.
 *
 * They are in IndexedDB: an entry for each transcript, and each of its paragraphs by its number, so that a talk of
 * hours is written piece by piece. What is read back may have been written by another version of this page.
 */

import type { Ticket } from "@conure/client";
import { signal } from "@preact/signals";
import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import { openTabs, tab } from "./tabs";
import type { Paragraph, Word } from "./transcript";

/** A live stream that may still be heard to its end. */
export interface Session {
  ticket: Ticket;
  /** Of the transcript, before the stream began. */
  seconds: number;
  utterances: number;
}

export interface Entry {
  id: string;
  kind: "live" | "file";
  /** Of the file; empty where somebody spoke. */
  name: string;
  /** Milliseconds since 1970. */
  begun: number;
  changed: number;
  /** The tab that writes it. */
  tab: string;
  /** Whether a file was transcribed to its end. */
  isDone: boolean;
  model: string;
  seconds: number;
  problems: string[];
  session: Session | null;
}

interface Schema extends DBSchema {
  transcripts: { key: string; value: Entry };
  paragraphs: { key: [string, number]; value: Paragraph & { transcript: string; number: number } };
}

const NAME = "conure";
const VERSION = 1;
/** Transcripts that are kept; the oldest go first. */
export const MOST_KEPT = 100;
const RETRY = 5000;
/** Of a preview. */
const PARAGRAPHS = 6;
const LETTERS = 160;

/** Why nothing can be kept now, as a sentence; empty where all is well. */
export const trouble = signal("");
/** Goes up whenever this tab or another one has written. */
export const version = signal(0);

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : null;
channel?.addEventListener("message", () => (version.value += 1));

let opened: Promise<IDBPDatabase<Schema>> | null = null;

export function newEntry(kind: Entry["kind"], name = ""): Entry {
  const now = Date.now();
  const id = `${now}-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  return { id, kind, name, begun: now, changed: now, tab, isDone: false, model: "", seconds: 0, problems: [], session: null };
}

/** The newest first. Throws what the browser says where nothing can be read. */
export async function entries(): Promise<Entry[]> {
  const found = await (await database()).getAll("transcripts");
  return found.flatMap((value) => entryFrom(value) ?? []).sort((a, b) => b.changed - a.changed);
}

/** Its first words; empty where nobody speaks. */
export async function previewOf(id: string): Promise<string> {
  const found = await (await database()).getAll("paragraphs", rangeOf(id), PARAGRAPHS);
  const text = found.map((value) => paragraphFrom(value).text).join(" ").trim();
  return text.length > LETTERS ? `${text.slice(0, LETTERS)} …` : text;
}

/** By number. */
export async function paragraphsOf(id: string): Promise<Map<number, Paragraph>> {
  const found = await (await database()).getAll("paragraphs", rangeOf(id));
  return new Map(found.flatMap((value) => (Number.isFinite(value.number) ? [[value.number, paragraphFrom(value)]] : [])));
}

export async function discard(ids: string[]): Promise<void> {
  const transaction = (await database()).transaction(["transcripts", "paragraphs"], "readwrite");
  const [transcripts, paragraphs] = [transaction.objectStore("transcripts"), transaction.objectStore("paragraphs")];
  await Promise.all([...ids.flatMap((id) => [transcripts.delete(id), paragraphs.delete(rangeOf(id))]), transaction.done]);
  tell();
}

/** Makes this tab the one that writes it; null where another tab was faster, or it is gone. */
export async function takeOver(entry: Entry): Promise<Entry | null> {
  const transaction = (await database()).transaction("transcripts", "readwrite");
  const found = entryFrom(await transaction.store.get(entry.id));
  const taken = found?.tab === entry.tab ? { ...found, tab } : null;
  await Promise.all([taken && transaction.store.put(taken), transaction.done]);
  return taken;
}

/** Writes one transcript as it grows. What could not be written is tried again. */
export class Writer {
  /** Whether all that it was given is kept. */
  readonly isSafe = signal(true);
  #changed = new Map<number, Paragraph | null>();
  #writing: Promise<void> | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isNew: boolean;
  #isOver = false;
  /** Something changed after what is being written now. */
  #isStale = false;

  constructor(
    readonly entry: Entry,
    isNew = true,
  ) {
    this.#isNew = isNew;
  }

  /** `null`: there is no such paragraph any more. Within `delay` milliseconds. */
  put(number: number, paragraph: Paragraph | null, delay = 0): void {
    if (this.#isOver) return;
    this.isSafe.value = false;
    this.#changed.set(number, paragraph);
    this.write(delay);
  }

  /** Writes the entry, and what was put. */
  write(delay = 0): void {
    if (this.#isOver) return;
    if (delay && this.#timer) return;
    this.#cancelTimer();
    if (delay) {
      this.#timer = setTimeout(() => this.write(), delay);
      return;
    }
    this.#isStale = true;
    this.#writing ??= this.#work();
  }

  /** Forgets it here and in the browser. */
  async drop(): Promise<void> {
    this.#isOver = true;
    this.#cancelTimer();
    this.#changed.clear();
    this.isSafe.value = true;
    await this.#writing;
    await discard([this.entry.id]).catch(() => undefined); // it was not kept, then
  }

  async #work(): Promise<void> {
    await null; // what changes together is written together
    while (this.#isStale && !this.#isOver) {
      const changed = this.#changed;
      this.#changed = new Map();
      this.#isStale = false;
      this.entry.changed = Date.now();
      try {
        await this.#commit({ ...this.entry }, changed); // as they are now: an entry says what its paragraphs hold
        trouble.value = "";
        this.isSafe.value = this.#changed.size === 0;
      } catch (error) {
        this.#changed = new Map([...changed, ...this.#changed]);
        trouble.value = reason(error);
        this.#isStale = false;
        this.write(RETRY);
      }
    }
    this.#writing = null;
  }

  async #commit(entry: Entry, changed: Map<number, Paragraph | null>): Promise<void> {
    const { id } = entry;
    const all = await database();
    if (this.#isNew) await dropOldest(all);
    const transaction = all.transaction(["transcripts", "paragraphs"], "readwrite");
    const paragraphs = transaction.objectStore("paragraphs");
    const written = [...changed].map(([number, paragraph]) =>
      paragraph ? paragraphs.put({ ...paragraph, transcript: id, number }) : paragraphs.delete([id, number]),
    );
    await Promise.all([transaction.objectStore("transcripts").put(entry), ...written, transaction.done]);
    this.#isNew = false;
    tell();
  }

  #cancelTimer(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }
}

async function dropOldest(all: IDBPDatabase<Schema>): Promise<void> {
  if ((await all.count("transcripts")) < MOST_KEPT) return;
  const used = await openTabs();
  const idle = (await entries()).filter((entry) => entry.tab !== tab && !used.has(entry.tab));
  await discard(idle.slice(MOST_KEPT - 1).map(({ id }) => id));
}

function database(): Promise<IDBPDatabase<Schema>> {
  opened ??= open();
  return opened;
}

async function open(): Promise<IDBPDatabase<Schema>> {
  try {
    return await openDB<Schema>(NAME, VERSION, {
      upgrade: (all) => {
        all.createObjectStore("transcripts", { keyPath: "id" });
        all.createObjectStore("paragraphs", { keyPath: ["transcript", "number"] });
      },
      blocking: (_, __, event) => {
        (event.target as IDBDatabase).close(); // a newer version of this page waits for it
        opened = null;
      },
      terminated: () => (opened = null),
    });
  } catch (error) {
    opened = null;
    throw error;
  }
}

function rangeOf(id: string): IDBKeyRange {
  return IDBKeyRange.bound([id], [id, []]);
}

function tell(): void {
  version.value += 1;
  channel?.postMessage("written");
}

/** Why the browser keeps nothing, and what to do. */
export function reason(error: unknown): string {
  switch ((error as Error).name) {
    case "QuotaExceededError":
      return "The browser has no room left, so this transcript is lost when the page is closed. Save it, or discard others under Earlier.";
    case "VersionError":
      return "A newer version of this page was open in this browser, so nothing is kept now. Reload the page, and save the transcript first.";
    default:
      return "This browser does not let the page keep anything, as in some private windows. Save the transcript before you close the page.";
  }
}

function entryFrom(value: unknown): Entry | null {
  if (typeof value !== "object" || value === null) return null;
  const { id, kind, name, begun, changed, tab, isDone, model, seconds, problems, session } = value as Partial<Record<keyof Entry, unknown>>;
  if (typeof id !== "string") return null;
  const texts = Array.isArray(problems) ? problems.filter((problem) => typeof problem === "string") : [];
  const times = { begun: numberOr(begun, 0), changed: numberOr(changed, numberOr(begun, 0)), seconds: numberOr(seconds, 0) };
  const said = { name: textOf(name), tab: textOf(tab), model: textOf(model), problems: texts };
  return { id, kind: kind === "file" ? "file" : "live", isDone: isDone === true, ...times, ...said, session: sessionFrom(session) };
}

function sessionFrom(value: unknown): Session | null {
  const { ticket, seconds, utterances } = (value ?? {}) as Partial<Session>;
  if (typeof ticket?.token !== "string" || !Number.isFinite(ticket.seq)) return null;
  return { ticket, seconds: numberOr(seconds, 0), utterances: numberOr(utterances, 0) };
}

function paragraphFrom(value: Partial<Record<keyof Paragraph, unknown>>): Paragraph {
  const words = Array.isArray(value.words) ? value.words.flatMap((word) => wordFrom(word) ?? []) : [];
  return { text: textOf(value.text), start: numberOr(value.start, 0), end: numberOr(value.end, 0), words };
}

function wordFrom(value: unknown): Word | null {
  const { text, start, end, confidence } = (value ?? {}) as Partial<Record<keyof Word, unknown>>;
  if (typeof text !== "string") return null;
  return { text, start: numberOr(start, null), end: numberOr(end, null), confidence: numberOr(confidence, null) };
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function numberOr<Else>(value: unknown, otherwise: Else): number | Else {
  return typeof value === "number" && Number.isFinite(value) ? value : otherwise;
}
