/** What was said, whoever heard it: live or in a file; and the forms in which people take it away. */

import { stamp } from "./time";

export interface Word {
  text: string;
  start: number | null;
  end: number | null;
  confidence: number | null;
}

export interface Paragraph {
  text: string;
  start: number;
  end: number;
  words: Word[];
}

export const FORMATS = ["txt", "srt", "vtt", "json"] as const;
export type Format = (typeof FORMATS)[number];

const MOST_LETTERS = 84;
const MOST_SECONDS = 6;
const PAUSE = 1;

export function rendered(paragraphs: Paragraph[], format: Format): string {
  switch (format) {
    case "txt":
      return paragraphs.map(({ text }) => `${text}\n`).join("");
    case "json":
      return `${JSON.stringify({ text: paragraphs.map(({ text }) => text).join(" "), segments: paragraphs }, null, 2)}\n`;
    case "srt":
      return cues(paragraphs)
        .map((cue, index) => `${index + 1}\n${stamp(cue.start, ",")} --> ${stamp(cue.end, ",")}\n${cue.text}\n`)
        .join("\n");
    case "vtt":
      return `WEBVTT\n${cues(paragraphs)
        .map((cue) => `\n${stamp(cue.start, ".")} --> ${stamp(cue.end, ".")}\n${escaped(cue.text)}\n`)
        .join("")}`;
  }
}

/** Short enough to be read in time: cut at pauses, at the length of two lines, and after some seconds. */
export function cues(paragraphs: Paragraph[]): Paragraph[] {
  return paragraphs.flatMap((paragraph) => {
    const parts: Word[][] = [];
    for (const word of paragraph.words) {
      const part = parts.at(-1);
      if (part && fits(part, word)) part.push(word);
      else parts.push([word]);
    }
    return parts.length ? parts.map(joined) : [paragraph];
  });
}

export function joined(words: Word[]): Paragraph {
  const times = words.flatMap(({ start, end }) => (start === null || end === null ? [] : [start, end]));
  const text = words.map((word) => word.text).join(" ");
  return { text, start: Math.min(...times, Infinity), end: Math.max(...times, 0), words };
}

function fits(part: Word[], word: Word): boolean {
  const { text, start, end } = joined(part);
  if (text.length + 1 + word.text.length > MOST_LETTERS) return false;
  return word.start === null || word.end === null || (word.start - end < PAUSE && word.end - start <= MOST_SECONDS);
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
