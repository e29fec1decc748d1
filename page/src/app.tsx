/** Four views of one server; the address says which is shown. */

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { Earlier } from "./earlier";
import { Files } from "./files";
import { trouble } from "./keeping";
import { KeyDialog } from "./key_dialog";
import { hasMicrophone } from "./listening";
import { Live } from "./live";
import { MicrophoneBar } from "./microphone_bar";
import { key, lookAtModels } from "./server";
import { ServerView } from "./server_view";

const VIEWS = { live: "Live", files: "Files", earlier: "Earlier", server: "Server" } as const;
type View = keyof typeof VIEWS;

const view = signal<View>(asked());
addEventListener("hashchange", () => (view.value = asked()));

function asked(): View {
  const name = location.hash.slice(1);
  return name in VIEWS ? (name as View) : "live";
}

export function App(): JSX.Element {
  useEffect(() => void lookAtModels(), [key.value]);
  return (
    <>
      <header class="top">
        <h1>
          <img src="./icon.svg" alt="" width="28" height="28" />
          Conure
        </h1>
        <nav aria-label="Views">
          {Object.entries(VIEWS).map(([name, label]) => (
            <a href={`#${name}`} aria-current={view.value === name ? "page" : undefined} class={name === "live" && hasMicrophone.value ? "on" : undefined}>
              {label}
            </a>
          ))}
        </nav>
      </header>
      <MicrophoneBar isHidden={view.value === "live"} />
      {trouble.value && (
        <p role="alert" class="notice bad trouble">
          {trouble.value}
        </p>
      )}
      <main>
        <div hidden={view.value !== "live"}>
          <Live />
        </div>
        <div hidden={view.value !== "files"}>
          <Files />
        </div>
        {view.value === "earlier" && (
          <div>
            <Earlier />
          </div>
        )}
        {view.value === "server" && (
          <div tabIndex={0}>
            <ServerView />
          </div>
        )}
      </main>
      <KeyDialog />
    </>
  );
}
