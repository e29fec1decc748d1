/** The live view: what the microphone hears, as it becomes text. */

import { computed, signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { BuiltIn, isBuiltIn } from "./built_in";
import { languageName } from "./languages";
import * as listening from "./listening";
import { notices } from "./notices";
import { models } from "./server";
import * as spoken from "./spoken";
import { TakeAway } from "./take_away";
import { clock } from "./time";
import type { Word } from "./transcript";

const devices = signal<MediaDeviceInfo[]>([]);
const chosen = signal<listening.Options>({ model: "", latencyMs: null, language: "", deviceId: "" });
const followers = computed(() => models.value.filter(({ live }) => live));
const model = computed(() => followers.value.find(({ name }) => name === chosen.value.model) ?? followers.value[0]);

const CONFIDENCE = [0.9, 0.7, 0.5];

const SENTENCES: Record<listening.State, string> = {
  idle: "Press the microphone and speak.",
  starting: "Opening the microphone …",
  listening: "Listening",
  paused: "Paused. What is said now is not heard.",
  away: "The connection is lost. Trying to come back …",
  ending: "Finishing the last words …",
};

async function lookForDevices(): Promise<void> {
  const found = await navigator.mediaDevices?.enumerateDevices();
  devices.value = (found ?? []).filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default");
}

export function Live(): JSX.Element {
  useEffect(() => {
    void lookForDevices();
    navigator.mediaDevices?.addEventListener("devicechange", lookForDevices);
    return () => navigator.mediaDevices?.removeEventListener("devicechange", lookForDevices);
  }, []);
  return (
    <section class="live" aria-label="Live">
      <Controls />
      {isBuiltIn(model.value?.name) && <BuiltIn name={model.value.name} />}
      <Notices />
      <Transcript />
      <Actions />
    </section>
  );
}

function Controls(): JSX.Element {
  const state = listening.state.value;
  const toggle = async () => {
    if (state === "idle") {
      await listening.start(chosen.value);
      await lookForDevices(); // their names are known once they may be used
    } else await listening.stop();
  };
  return (
    <div class="controls">
      <div class="talk">
        <button
          type="button"
          class={`microphone ${state}`}
          onClick={toggle}
          disabled={state === "starting" || state === "ending"}
          aria-label={state === "idle" ? "Start listening" : "Stop listening"}
        >
          {state === "idle" || state === "starting" ? <MicrophoneIcon /> : <StopIcon />}
        </button>
        <div class="state">
          <p role="status">{SENTENCES[state]}</p>
          <Meter />
          <Facts />
        </div>
        {(state === "listening" || state === "paused") && (
          <button type="button" onClick={state === "paused" ? listening.goOn : listening.pause}>
            {state === "paused" ? "Go on" : "Pause"}
          </button>
        )}
      </div>
      <Choices />
    </div>
  );
}

function Meter(): JSX.Element {
  const decibels = 20 * Math.log10(Math.max(listening.level.value, 1e-4));
  const part = Math.max(0, Math.min(1, (decibels + 60) / 54));
  return (
    <div class="meter" role="meter" aria-label="Loudness" aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(part * 100)}>
      <div style={{ transform: `scaleX(${part})` }} />
    </div>
  );
}

function Facts(): JSX.Element | null {
  const agreed = listening.agreed.value;
  const lag = listening.lag.value;
  if (!agreed || listening.state.value === "idle") return null;
  return (
    <p class="facts">
      <span>{agreed.model}</span>
      <span>{agreed.latencyMs} ms delay</span>
      {lag !== null && <span class={lag > 2 ? "bad" : ""}>{lag.toFixed(1)} s behind</span>}
    </p>
  );
}

function Choices(): JSX.Element {
  const latencies = Object.keys(model.value?.streams ?? {}).map(Number);
  const change = (part: Partial<listening.Options>) => (chosen.value = { ...chosen.value, ...part });
  const languages = model.value?.languages ?? [];
  return (
    <fieldset class="choices" disabled={listening.isOpen.value}>
      <legend class="unseen">What to listen with</legend>
      <label>
        Microphone
        <select value={chosen.value.deviceId} onChange={(event) => change({ deviceId: event.currentTarget.value })}>
          <option value="">Default</option>
          {devices.value.map(({ deviceId, label }, index) => (
            <option value={deviceId}>{label || `Microphone ${index + 1}`}</option>
          ))}
        </select>
      </label>
      <label>
        Model
        <select
          value={model.value?.name ?? ""}
          onChange={(event) => change({ model: event.currentTarget.value, latencyMs: null, language: "" })}
        >
          {followers.value.map(({ name }) => (
            <option value={name}>{name}</option>
          ))}
        </select>
      </label>
      <label title="How much more sound the model waits for before it writes. A longer delay gives fewer mistakes.">
        Delay
        <select
          value={String(chosen.value.latencyMs ?? "")}
          onChange={(event) => change({ latencyMs: Number(event.currentTarget.value) || null })}
        >
          <option value="">Default</option>
          {latencies.map((milliseconds) => (
            <option value={String(milliseconds)}>{milliseconds} ms</option>
          ))}
        </select>
      </label>
      <label>
        Language
        <select value={chosen.value.language} onChange={(event) => change({ language: event.currentTarget.value })}>
          <option value="">{languages.length === 1 ? languageName(languages[0]!) : "Found out by itself"}</option>
          {languages.length > 1 && languages.map((language) => <option value={language}>{languageName(language)}</option>)}
        </select>
      </label>
    </fieldset>
  );
}

function Notices(): JSX.Element {
  return (
    <div role="alert" class="notices">
      {notices.value.map(({ topic, text, isBad }) => (
        <p key={topic} class={isBad ? "notice bad" : "notice"}>
          {text}
        </p>
      ))}
    </div>
  );
}

function Transcript(): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const top = useRef(0);
  const { value } = spoken.utterances;
  useEffect(() => {
    const pin = () => follows.current && box.current!.scrollTo({ top: box.current!.scrollHeight });
    const observer = new ResizeObserver(pin);
    observer.observe(box.current!);
    observer.observe(box.current!.firstElementChild!);
    return () => observer.disconnect();
  }, []);
  /** Whoever goes up is left there; whoever comes back to the end follows again. */
  const onScroll = ({ currentTarget: { scrollHeight, scrollTop, clientHeight } }: { currentTarget: HTMLElement }) => {
    if (scrollHeight - scrollTop - clientHeight < 48) follows.current = true;
    else if (scrollTop < top.current) follows.current = false;
    top.current = scrollTop;
  };
  return (
    <>
      <div ref={box} class="transcript" onScroll={onScroll} tabIndex={0} role="region" aria-label="What was said">
        <div>
          {value.length === 0 && (
            <p class="empty">
              What is said will be here, word for word. It stays in this browser: <a href="#earlier">earlier transcripts</a>.
            </p>
          )}
          {value.map((utterance) => (
            <Spoken key={utterance.number} utterance={utterance} />
          ))}
        </div>
      </div>
      <p class="unseen" aria-live="polite">
        {spoken.spoken.value}
      </p>
    </>
  );
}

/** Drawn again only where it has changed: a long talk has thousands. */
function Spoken({ utterance }: { utterance: spoken.Utterance }): JSX.Element {
  return useMemo(
    () => (
      <div class="utterance">
        <time>{clock(utterance.start)}</time>
        {utterance.words?.length ? (
          <p>
            {utterance.words.map((word, index) => (
              <Said word={word} isFirst={index === 0} />
            ))}
          </p>
        ) : (
          <p>
            {utterance.stable}
            {utterance.tail.startsWith(" ") && " "}
            <span class="tail">{utterance.tail.trimStart()}</span>
          </p>
        )}
      </div>
    ),
    [utterance],
  );
}

function Said({ word, isFirst }: { word: Word; isFirst: boolean }): JSX.Element {
  const { confidence, text } = word;
  const grade = confidence === null ? 0 : CONFIDENCE.filter((least) => confidence < least).length;
  const title = confidence === null ? undefined : `${Math.round(confidence * 100)} % sure`;
  return (
    <>
      {!isFirst && " "}
      <span class={`word sure-${grade}`} title={title}>
        {text}
      </span>
    </>
  );
}

function Actions(): JSX.Element {
  const nothing = spoken.paragraphs.value.length === 0;
  return (
    <TakeAway paragraphs={() => spoken.paragraphs.value} name="transcript" disabled={nothing}>
      <button
        type="button"
        disabled={nothing || listening.isOpen.value}
        onClick={listening.clear}
        class="apart"
        title="Begins an empty transcript. This one stays under Earlier."
      >
        Clear
      </button>
    </TakeAway>
  );
}

function MicrophoneIcon(): JSX.Element {
  return (
    <svg viewBox="0 0 24 24" width="28" height="28" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round">
      <rect x="9" y="3" width="6" height="11" rx="3" />
      <path d="M5 11a7 7 0 0 0 14 0M12 18v3" />
    </svg>
  );
}

function StopIcon(): JSX.Element {
  return (
    <svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" fill="currentColor">
      <rect x="6" y="6" width="12" height="12" rx="2" />
    </svg>
  );
}
