/** The view of recordings: drop some, watch them, listen to them word by word, take the text away. */

import type { JSX } from "preact";
import { useSignal, type Signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { BuiltIn, isBuiltIn } from "./built_in";
import { languageName } from "./languages";
import { Player } from "./player";
import { add, again, paragraphsOf, recordings, remove, type Recording } from "./recordings";
import { Recipes, SampleCard } from "./sample";
import { models } from "./server";
import { TakeAway } from "./take_away";
import { clock } from "./time";
import type { Paragraph, Word } from "./transcript";

const SENTENCES = {
  waiting: "Waiting for those before it",
  uploading: "Uploading",
  transcribing: "Transcribing",
  done: "",
  failed: "",
  stopped: "Stopped",
};

/** Seconds. */
const SHORTEST = 0.12;

export function Files(): JSX.Element {
  const model = models.value.find(({ clips }) => clips);
  return (
    <section aria-label="Files" class="files">
      <DropZone />
      {recordings.value.length === 0 && (
        <p class="empty">
          Sound or video of any kind and length. It goes to this server and to nobody else. Transcripts stay in this browser:{" "}
          <a href="#earlier">earlier transcripts</a>.
        </p>
      )}
      {isBuiltIn(model?.name) && <BuiltIn name={model.name} />}
      {recordings.value.map((recording) => (
        <Card key={recording.id} recording={recording} />
      ))}
      {model && (
        <>
          <SampleCard />
          <Recipes />
        </>
      )}
    </section>
  );
}

function DropZone(): JSX.Element {
  const over = useSignal(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => takeDrops(over), []);
  const onChange = () => {
    add(field.current?.files ?? []);
    if (field.current) field.current.value = "";
  };
  return (
    <div class={over.value ? "drop over" : "drop"}>
      <p>Drop recordings here</p>
      <label class="button strong">
        or choose some
        <input ref={field} class="unseen" type="file" multiple accept="audio/*,video/*,.flac,.opus,.mka" onChange={onChange} />
      </label>
    </div>
  );
}

/** Anywhere on the page and in every view: what a browser is left to open replaces the page. */
function takeDrops(over: Signal<boolean>): () => void {
  const stopping = new AbortController();
  const on = (name: "dragover" | "dragleave" | "drop", isOver: boolean) =>
    addEventListener(
      name,
      (event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        over.value = isOver;
        if (name !== "drop") return;
        add(event.dataTransfer.files);
        location.hash = "files";
      },
      { signal: stopping.signal },
    );
  on("dragover", true);
  on("dragleave", false);
  on("drop", false);
  return () => stopping.abort();
}

function Card({ recording }: { recording: Recording }): JSX.Element {
  const { file, step, fault, transcript, progress } = recording;
  const found = transcript.value;
  return (
    <article class="card" aria-label={file.name}>
      <header>
        <h2 title={file.name}>{file.name}</h2>
        <p class="facts">
          <span>{size(file.size)}</span>
          {found && <span>{clock(found.duration)}</span>}
          {found?.model && <span>{found.model}</span>}
          {found?.language && <span>{languageName(found.language)}</span>}
        </p>
        <button type="button" class="quiet" onClick={() => remove(recording)} aria-label={`Remove ${file.name}`}>
          ✕
        </button>
      </header>
      {SENTENCES[step.value] && (
        <p role="status" class="progress">
          <span>
            {SENTENCES[step.value]}
            {progress.value !== null && step.value !== "waiting" && ` ${Math.round(progress.value * 100)} %`}
          </span>
          {(step.value === "uploading" || step.value === "transcribing") && (
            <progress aria-label={SENTENCES[step.value]} {...(progress.value === null ? {} : { value: progress.value })} />
          )}
        </p>
      )}
      {step.value === "failed" && (
        <div role="alert" class="notice bad">
          <p>{fault.value}</p>
          <button type="button" onClick={() => again(recording)}>
            Try again
          </button>
        </div>
      )}
      {found && <Found recording={recording} />}
    </article>
  );
}

function Found({ recording }: { recording: Recording }): JSX.Element {
  const found = recording.transcript.value!;
  const said = useMemo(() => paragraphsOf(found), [found]);
  const now = useSignal(-1);
  const seek = useRef<(seconds: number) => void>(() => undefined);
  const name = recording.file.name.replace(/\.[^.]+$/, "");
  return (
    <>
      <Player file={recording.file} onTime={(seconds) => (now.value = seconds)} seek={seek} />
      {said.length === 0 ? (
        <p class="empty">No speech was heard in it.</p>
      ) : (
        <div class="transcript words">
          {said.map((paragraph) => (
            <Heard paragraph={paragraph} sounding={soundingAt(paragraph, now.value)} seek={seek} />
          ))}
        </div>
      )}
      {found.problems.map((problem) => (
        <p class="notice">{problem}</p>
      ))}
      <TakeAway paragraphs={() => said} name={name} />
    </>
  );
}

interface HeardProps {
  paragraph: Paragraph;
  /** Which of its words is played now; -1 for none. */
  sounding: number;
  seek: { current: (seconds: number) => void };
}

/** Drawn again only where another word sounds: a recording of hours has tens of thousands. */
function Heard({ paragraph, sounding, seek }: HeardProps): JSX.Element {
  return useMemo(
    () => (
      <div class="utterance">
        <time>{clock(paragraph.start)}</time>
        <p>
          {paragraph.words.map((word, index) => (
            <HeardWord word={word} isFirst={index === 0} isNow={index === sounding} seek={seek} />
          ))}
        </p>
      </div>
    ),
    [paragraph, sounding],
  );
}

interface HeardWordProps {
  word: Word;
  isFirst: boolean;
  isNow: boolean;
  seek: { current: (seconds: number) => void };
}

function HeardWord({ word, isFirst, isNow, seek }: HeardWordProps): JSX.Element {
  const button = useRef<HTMLButtonElement>(null);
  const { start, text } = word;
  useEffect(() => {
    if (isNow) button.current?.scrollIntoView({ block: "nearest" });
  }, [isNow]);
  return (
    <>
      {!isFirst && " "}
      <button
        ref={button}
        type="button"
        class={isNow ? "word now" : "word"}
        disabled={start === null}
        onClick={() => start !== null && seek.current(start)}
        title={start === null ? undefined : clock(start)}
      >
        {text}
      </button>
    </>
  );
}

/** Words of no length sound for a moment, too. */
function soundingAt({ words, start, end }: Paragraph, now: number): number {
  if (now < start || now >= end + SHORTEST) return -1;
  return words.findIndex((word) => word.start !== null && now >= word.start && now < Math.max(word.end ?? 0, word.start + SHORTEST));
}

function size(bytes: number): string {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
