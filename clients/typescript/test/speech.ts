/** Real speech: digits of one speaker. */

import { readFileSync } from "node:fs";

const file = readFileSync(new URL("../../../tests/conformance/speech.wav", import.meta.url));

export const SAID = "seven three nine zero one five eight two";
export const WAV = new Uint8Array(file);
/** 16 bits, mono, 16 kHz. */
export const PCM = new Uint8Array(file.subarray(file.indexOf("data") + 8));

export function packets(milliseconds = 100): Uint8Array[] {
  const size = 32 * milliseconds;
  return Array.from({ length: Math.ceil(PCM.length / size) }, (_, index) => PCM.subarray(index * size, (index + 1) * size));
}
