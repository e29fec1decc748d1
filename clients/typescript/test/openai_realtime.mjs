/** Uses OpenAI's client for Node, which needs wss: prints the text of each utterance until the given number of words. */

import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const [base, recording, words] = process.argv.slice(2);
const file = readFileSync(recording);
const pcm = file.subarray(file.indexOf("data") + 8);
const said = [];

const realtime = new OpenAIRealtimeWS({ model: "tiny-live" }, new OpenAI({ baseURL: `${base}/v1`, apiKey: "any" }));
realtime.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
realtime.socket.on("open", () => {
  const input = { format: { type: "audio/pcm", rate: 24_000 }, transcription: { model: "tiny-live" }, turn_detection: null };
  realtime.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
  for (let begin = 0; begin < pcm.length; begin += 3200)
    realtime.send({ type: "input_audio_buffer.append", audio: to24kHz(pcm.subarray(begin, begin + 3200)).toString("base64") });
  realtime.send({ type: "input_audio_buffer.commit" });
});
realtime.on("conversation.item.input_audio_transcription.completed", ({ transcript }) => {
  said.push(transcript);
  if (said.join(" ").split(" ").length >= Number(words)) {
    console.log(said.join(" "));
    realtime.close();
  }
});

/** Resamples 2:3 by linear interpolation. */
function to24kHz(data) {
  const samples = new Int16Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.length));
  const out = Buffer.alloc(Math.floor(samples.length * 1.5) * 2);
  for (let index = 0; index < out.length / 2; index++) {
    const at = (index * 2) / 3;
    const before = samples[Math.floor(at)];
    const after = samples[Math.min(Math.floor(at) + 1, samples.length - 1)];
    out.writeInt16LE(Math.round(before + (after - before) * (at % 1)), index * 2);
  }
  return out;
}
