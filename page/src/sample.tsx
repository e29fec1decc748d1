/** A recording that comes with the server, for those who have none at hand; and how programs do the same. */

import { computed, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { isBuiltIn } from "./built_in";
import { add } from "./recordings";
import { address, advice, key, models } from "./server";
import { CopyButton } from "./take_away";

interface Sample {
  file: string;
  says: string;
  from: string;
}

const DIGITS: Sample = {
  file: "digits.flac",
  says: "Spoken digits, 7 seconds.",
  from: "From the Free Spoken Digit Dataset, CC BY-SA 4.0.",
};
const SPEECH: Sample = {
  file: "speech.flac",
  says: "John F. Kennedy in 1961, 11 seconds.",
  from: "In the public domain.",
};

/** One that the server's model understands. */
const sample = computed<Sample>(() => (isBuiltIn(models.value.find(({ clips }) => clips)?.name) ? DIGITS : SPEECH));

export function SampleCard(): JSX.Element {
  const { file, says, from } = sample.value;
  const fault = useSignal("");
  const onClick = async () => {
    try {
      const answer = await fetch(`./assets/${file}`);
      if (!answer.ok) throw new Error(`the server answered HTTP ${answer.status}`);
      add([new File([await answer.blob()], file, { type: "audio/flac" })]);
      fault.value = "";
    } catch (error) {
      fault.value = advice(error);
    }
  };
  return (
    <div class="card" role="group" aria-label="Sample recording">
      <header>
        <h2>Nothing at hand? Try this one.</h2>
        <p class="facts">
          <span>{says}</span> <span>{from}</span>
        </p>
      </header>
      <div class="sample">
        <audio controls preload="none" src={`./assets/${file}`} aria-label="Play the sample" />
        <button type="button" onClick={onClick}>
          Transcribe it
        </button>
      </div>
      {fault.value && (
        <p role="alert" class="notice bad">
          {fault.value}
        </p>
      )}
    </div>
  );
}

/** The same from programs, with the address of this server. */
export function Recipes(): JSX.Element {
  return (
    <details class="card recipes">
      <summary>The same from curl, Python or JavaScript</summary>
      {key.value && (
        <p class="empty">
          This server asks for a key: put yours into the environment variable <code>CONURE_KEY</code>.
        </p>
      )}
      {Object.entries(recipes(address, sample.value.file, Boolean(key.value))).map(([name, text]) => (
        <figure>
          <figcaption>
            {name}
            <CopyButton text={() => text} label={`Copy for ${name}`} />
          </figcaption>
          <pre tabIndex={0} aria-label={`Code for ${name}`}>
            <code>{text}</code>
          </pre>
        </figure>
      ))}
    </details>
  );
}

function recipes(server: string, file: string, needsKey: boolean): Record<string, string> {
  const sound = `${server}/assets/${file}`;
  return {
    curl: `curl -O ${sound}
curl --data-binary @${file}${needsKey ? ' -H "Authorization: Bearer $CONURE_KEY"' : ""} ${server}/v1/transcribe`,
    Python: `# pip install conure
${needsKey ? "import os\n" : ""}from urllib.request import urlopen
from conure.client import BlockingClient

sound = urlopen("${sound}").read()  # or a path: "talk.mp3"
client = BlockingClient("${server}"${needsKey ? ', key=os.environ["CONURE_KEY"]' : ""})
print(client.transcribe(sound).text)`,
    JavaScript: `const sound = await (await fetch("${sound}")).blob();
const answer = await fetch("${server}/v1/transcribe", {
  method: "POST",
  body: sound,${needsKey ? "\n  headers: { Authorization: `Bearer ${process.env.CONURE_KEY}` }," : ""}
});
console.log((await answer.json()).text);`,
  };
}
