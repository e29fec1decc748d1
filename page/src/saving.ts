/** Texts onto the clipboard and into files. */

import { FORMATS, rendered, type Format, type Paragraph } from "./transcript";

const KINDS: Record<Format, string> = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };

export { FORMATS };

export function save(paragraphs: Paragraph[], format: Format, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rendered(paragraphs, format)], { type: `${KINDS[format]};charset=utf-8` }));
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Whether it worked: browsers refuse where the page is not shown, or not trusted. */
export async function copy(paragraphs: Paragraph[]): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(rendered(paragraphs, "txt"));
    return true;
  } catch {
    return false;
  }
}
