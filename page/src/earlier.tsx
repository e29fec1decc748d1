/** The view of transcripts that this browser has kept: from before a reload, of closed tabs, of files. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { MOST_KEPT, discard, entries, paragraphsOf, previewOf, reason, version, type Entry } from "./keeping";
import * as listening from "./listening";
import { recordings, type Recording } from "./recordings";
import * as spoken from "./spoken";
import { openTabs, tab } from "./tabs";
import { TakeAway } from "./take_away";
import { clock } from "./time";
import type { Paragraph } from "./transcript";

/** Milliseconds between two looks at what other tabs do. */
const OFTEN = 2000;

interface Found {
  entries: (Entry & { preview: string })[];
  /** Other tabs that are open. */
  tabs: Set<string>;
}

export function Earlier(): JSX.Element {
  const found = useSignal<Found | null>(null);
  const fault = useSignal("");
  const look = async () => {
    try {
      const [all, tabs] = await Promise.all([entries(), openTabs()]);
      const known = await Promise.all(all.map(async (entry) => ({ ...entry, preview: await previewOf(entry.id) })));
      found.value = { entries: known.filter(({ kind, preview }) => preview || kind === "file"), tabs };
      fault.value = "";
    } catch (error) {
      fault.value = reason(error);
    }
  };
  useEffect(() => void look(), [version.value]);
  useEffect(() => {
    const timer = setInterval(() => found.value?.tabs.size && void look(), OFTEN); // nobody tells that a tab was closed
    return () => clearInterval(timer);
  }, []);
  const shown = found.value?.entries ?? [];
  const mayGo = shown.filter((entry) => !use(entry, found.value!.tabs));
  const discardAll = () => {
    if (confirm(`Discard ${mayGo.length} transcripts? They cannot be brought back.`)) void drop(mayGo, fault);
  };
  return (
    <section aria-label="Earlier" class="files">
      <p class="empty">
        The last {MOST_KEPT} transcripts stay in this browser until you discard them, also when the page is closed. Nobody else gets them; whoever
        uses this browser can read them.
      </p>
      {fault.value && (
        <p role="alert" class="notice bad">
          {fault.value}
        </p>
      )}
      {found.value && shown.length === 0 && <p class="empty">There are none yet.</p>}
      {shown.map((entry) => (
        <Card key={entry.id} entry={entry} preview={entry.preview} usedBy={use(entry, found.value!.tabs)} onDiscard={() => drop([entry], fault)} />
      ))}
      {mayGo.length > 1 && (
        <div class="actions">
          <button type="button" class="apart" onClick={discardAll}>
            Discard all
          </button>
        </div>
      )}
    </section>
  );
}

interface CardProps {
  entry: Entry;
  /** Its first words. */
  preview: string;
  usedBy: string;
  onDiscard: () => Promise<void>;
}

function Card({ entry, preview, usedBy, onDiscard }: CardProps): JSX.Element {
  const paragraphs = useSignal<Paragraph[] | null>(null);
  const fault = useSignal("");
  const isOpen = useSignal(false);
  const title = entry.name || `Spoken ${when(entry.begun)}`;
  const read = async () => [...(await paragraphsOf(entry.id)).values()];
  useEffect(() => {
    if (!isOpen.value) return;
    read().then(
      (said) => (paragraphs.value = said),
      (error: unknown) => (fault.value = reason(error)),
    );
  }, [isOpen.value, version.value]);
  const onClick = () => {
    if (confirm(`Discard “${title}”? It cannot be brought back.`)) void onDiscard();
  };
  const isEmpty = !preview;
  return (
    <article class="card" aria-label={title}>
      <header>
        <h2 title={title}>{title}</h2>
        <p class="facts">
          {entry.name && <span>{when(entry.begun)}</span>}
          {entry.seconds > 0 && <span>{clock(entry.seconds)}</span>}
          {entry.model && <span>{entry.model}</span>}
          {usedBy && <span>{usedBy}</span>}
        </p>
      </header>
      {isEmpty && <p class="empty">{emptiness(entry, usedBy)}</p>}
      {!isEmpty && (
        <details onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
          <summary>{isOpen.value ? "Whole transcript" : preview}</summary>
          <div class="transcript">
            {paragraphs.value?.map(({ start, text }) => (
              <div class="utterance">
                <time>{clock(start)}</time>
                <p>{text}</p>
              </div>
            ))}
          </div>
        </details>
      )}
      {fault.value && (
        <p role="alert" class="notice bad">
          {fault.value}
        </p>
      )}
      {entry.problems.map((problem) => (
        <p class="notice">{problem}</p>
      ))}
      <TakeAway paragraphs={read} name={entry.name.replace(/\.[^.]+$/, "") || "transcript"} disabled={isEmpty}>
        <button type="button" class="apart" disabled={Boolean(usedBy)} onClick={onClick} aria-label={`Discard ${title}`}>
          Discard
        </button>
      </TakeAway>
    </article>
  );
}

async function drop(gone: Entry[], fault: { value: string }): Promise<void> {
  const ids = gone.map(({ id }) => id);
  const isGone = ({ writer }: Recording) => ids.includes(writer.entry.id);
  if (ids.includes(spoken.id.value ?? "")) await listening.discard();
  await Promise.all(recordings.value.filter(isGone).map(({ writer }) => writer.drop())); // else it might write once more
  recordings.value = recordings.value.filter((recording) => !isGone(recording));
  await discard(ids).catch((error: unknown) => (fault.value = reason(error)));
}

/** Why it may not be discarded now; empty where it may. */
function use(entry: Entry, tabs: Set<string>): string {
  if (tabs.has(entry.tab)) return "open in another tab";
  if (entry.id === spoken.id.value && listening.isOpen.value) return "being listened to";
  const recording = recordings.value.find(({ writer }) => writer.entry.id === entry.id);
  return recording && ["waiting", "uploading", "transcribing"].includes(recording.step.value) ? "not finished yet" : "";
}

function emptiness({ isDone }: Entry, usedBy: string): string {
  if (isDone) return "No speech was heard in it.";
  return usedBy ? "Its transcript is not finished yet." : "The page was closed before it was transcribed. Add it under Files again.";
}

function when(milliseconds: number): string {
  return new Date(milliseconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
