/** Texts onto the clipboard and into files. */

import { rendered, type Format, type Paragraph } from "./transcript";

const KINDS: Record<Format, string> = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };

export function save(paragraphs: Paragraph[], format: Format, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rendered(paragraphs, format)], { type: `${KINDS[format]};charset=utf-8` }));
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Whether it worked: browsers may refuse. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelecting(text); // pages without https have no clipboard
  }
}

function copyBySelecting(text: string): boolean {
  const field = document.createElement("textarea");
  const { activeElement } = document;
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } finally {
    field.remove();
    (activeElement as HTMLElement | null)?.focus();
  }
}
