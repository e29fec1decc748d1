/** What the models inside the package know, for those who meet them first. */

import type { JSX } from "preact";

const NAMES = ["tiny", "tiny-live"];
const COMMAND = "conure serve --model parakeet-tdt-0.6b-v3";

export function isBuiltIn(name: string | undefined): name is string {
  return name !== undefined && NAMES.includes(name);
}

export function BuiltIn({ name }: { name: string }): JSX.Element {
  return (
    <p class="notice built-in" role="note">
      <span>
        {name} knows digits and a few commands: load a real model with <code>{COMMAND}</code>
      </span>
    </p>
  );
}
