/** Three views of one server; the address says which is shown. */

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { Files } from "./files";
import { KeyDialog } from "./key_dialog";
import { Live } from "./live";
import { ServerView } from "./server_view";

const VIEWS = { live: "Live", files: "Files", server: "Server" } as const;
type View = keyof typeof VIEWS;

const view = signal<View>(asked());
addEventListener("hashchange", () => (view.value = asked()));

function asked(): View {
  const name = location.hash.slice(1);
  return name in VIEWS ? (name as View) : "live";
}

export function App(): JSX.Element {
  return (
    <>
      <header class="top">
        <h1>
          <img src="./icon.svg" alt="" width="28" height="28" />
          Conure
        </h1>
        <nav aria-label="Views">
          {Object.entries(VIEWS).map(([name, label]) => (
            <a href={`#${name}`} aria-current={view.value === name ? "page" : undefined}>
              {label}
            </a>
          ))}
        </nav>
      </header>
      <main>
        <div hidden={view.value !== "live"}>
          <Live />
        </div>
        <div hidden={view.value !== "files"}>
          <Files />
        </div>
        {view.value === "server" && <ServerView />}
      </main>
      <KeyDialog />
    </>
  );
}
