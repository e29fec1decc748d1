/** Recordings that were dropped: each is uploaded and transcribed, one after the other. */

import type { Transcript } from "@conure/client";
import { computed, signal, type Signal } from "@preact/signals";
import { Writer, newEntry } from "./keeping";
import { advice, client } from "./server";
import type { Paragraph } from "./transcript";

export type Step = "waiting" | "uploading" | "transcribing" | "done" | "failed" | "stopped";

export interface Recording {
  id: number;
  file: File;
  step: Signal<Step>;
  /** Of the step, from 0 to 1; null where it is not known. */
  progress: Signal<number | null>;
  transcript: Signal<Transcript | null>;
  fault: Signal<string>;
  stopping: AbortController;
  /** Keeps its transcript in the browser. */
  writer: Writer;
}

const UNFINISHED: Step[] = ["waiting", "uploading", "transcribing"];

export const recordings = signal<Recording[]>([]);
/** Whether one of them would be lost with the page. */
export const isWorking = computed(() => recordings.value.some(({ step }) => UNFINISHED.includes(step.value)));

let last = 0;
let working = false;

export function add(files: Iterable<File>): void {
  const added = [...files].map((file) => ({
    id: ++last,
    file,
    step: signal<Step>("waiting"),
    progress: signal<number | null>(null),
    transcript: signal<Transcript | null>(null),
    fault: signal(""),
    stopping: new AbortController(),
    writer: new Writer(newEntry("file", file.name)),
  }));
  for (const { writer } of added) writer.write(); // so that one that is not finished is known after a reload
  recordings.value = [...recordings.value, ...added];
  void work();
}

/** What was transcribed stays among the transcripts that the browser keeps. */
export function remove(recording: Recording): void {
  recording.stopping.abort();
  if (!recording.transcript.value) void recording.writer.drop();
  recordings.value = recordings.value.filter(({ id }) => id !== recording.id);
}

export function again(recording: Recording): void {
  recording.step.value = "waiting";
  recording.fault.value = "";
  recording.stopping = new AbortController();
  void work();
}

/** Segments as what can be taken away. */
export function paragraphsOf(transcript: Transcript): Paragraph[] {
  return transcript.segments.map(({ text, start, end, words }) => ({ text, start: start ?? 0, end: end ?? 0, words }));
}

async function work(): Promise<void> {
  if (working) return;
  working = true;
  for (let next = waiting(); next; next = waiting()) await transcribe(next);
  working = false;
}

function waiting(): Recording | undefined {
  return recordings.value.find(({ step }) => step.value === "waiting");
}

async function transcribe(recording: Recording): Promise<void> {
  const { file, step, progress, transcript, fault, stopping, writer } = recording;
  step.value = "uploading";
  progress.value = 0;
  try {
    const found = await client().transcribe(file, {
      signal: stopping.signal,
      onUpload: (part) => {
        progress.value = part;
        if (part < 1) return;
        step.value = "transcribing";
        progress.value = null;
      },
      onProgress: (part) => {
        step.value = "transcribing";
        progress.value = part;
      },
    });
    keep(found, writer);
    transcript.value = found;
    step.value = "done";
  } catch (error) {
    fault.value = stopping.signal.aborted ? "" : advice(error);
    step.value = stopping.signal.aborted ? "stopped" : "failed";
  }
}

function keep(found: Transcript, writer: Writer): void {
  const { duration, model, problems } = found;
  Object.assign(writer.entry, { isDone: true, seconds: duration, model: model ?? "", problems });
  paragraphsOf(found).forEach((paragraph, index) => writer.put(index, paragraph));
  writer.write();
}
