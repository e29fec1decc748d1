/** Buttons that copy a transcript, or save it as a file. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { reason } from "./keeping";
import { copy, save } from "./saving";
import { FORMATS, rendered, type Format, type Paragraph } from "./transcript";

/** Milliseconds that "Copied" is shown. */
const BRIEF = 4000;

interface CopyProps {
  text: () => string | Promise<string>;
  label?: string;
  disabled?: boolean;
}

export function CopyButton({ text, label = "Copy", disabled = false }: CopyProps): JSX.Element {
  const outcome = useSignal("");
  const onClick = async () => {
    const worked = await copy(await text());
    const said = worked ? "Copied." : "The browser does not let this page copy. Select the text instead.";
    outcome.value = said;
    setTimeout(() => (outcome.value = ""), BRIEF);
  };
  return (
    <>
      <button type="button" disabled={disabled} onClick={onClick} aria-label={label}>
        Copy
      </button>
      <span role="status" class="outcome">
        {outcome.value}
      </span>
    </>
  );
}

interface Props {
  /** Throws where the browser cannot read what it has kept. */
  paragraphs: () => Paragraph[] | Promise<Paragraph[]>;
  /** Of the file, without its ending. */
  name: string;
  disabled?: boolean;
  children?: ComponentChildren;
}

export function TakeAway({ paragraphs, name, disabled = false, children }: Props): JSX.Element {
  const fault = useSignal("");
  const given = async (take: (said: Paragraph[]) => void) => {
    try {
      take(await paragraphs());
      fault.value = "";
    } catch (error) {
      fault.value = reason(error);
    }
  };
  const text = async () => rendered(await paragraphs(), "txt");
  return (
    <div class="actions" role="group" aria-label="Save the transcript">
      <CopyButton text={text} disabled={disabled} />
      {FORMATS.map((format: Format) => (
        <button
          type="button"
          disabled={disabled}
          onClick={() => given((said) => save(said, format, name))}
          aria-label={`Download as ${format}`}
          title={TITLES[format]}
        >
          .{format}
        </button>
      ))}
      {fault.value && <span role="alert">{fault.value}</span>}
      {children}
    </div>
  );
}

const TITLES: Record<Format, string> = {
  txt: "Plain text",
  srt: "Subtitles that most players read",
  vtt: "Subtitles for web pages",
  json: "Each word with its time and how sure the model is of it",
};
