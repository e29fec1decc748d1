/** The server that this page came from. */

import { Client, ServerError, type ConureError, type ServerModel } from "@conure/client";
import { signal } from "@preact/signals";
import { settle, tell } from "./notices";
import { remember, remembered } from "./storage";

const KEY = "conure-key";

/** Whoever needs a key is asked for it once a tab. */
export const key = signal(remembered(KEY));
/** The server has asked for a key, or for another one. */
export const asksForKey = signal(false);

export function keepKey(secret: string): void {
  key.value = secret;
  remember(KEY, secret);
  asksForKey.value = false;
}

/** Where the server is: this page's own address, with what a proxy adds. */
export const address = new URL(".", location.href).href.replace(/\/$/, "");

/** All that it serves; empty until it has told. */
export const models = signal<ServerModel[]>([]);
const RETRY = 3000;
let looking: ReturnType<typeof setTimeout> | null = null;

/** Asks the server for its models, again and again while it does not answer. */
export async function lookAtModels(): Promise<void> {
  if (looking) clearTimeout(looking);
  looking = null;
  try {
    const told = await client().status();
    models.value = told.models ?? [];
    settle("server");
    if (!told.models && !key.value) asksForKey.value = true;
  } catch (error) {
    tell("server", advice(error));
    if ((error as ConureError).code === "cannot_connect") looking = setTimeout(() => void lookAtModels(), RETRY);
  }
}

export function client(): Client {
  return new Client(new URL(".", location.href), key.value ? { key: key.value } : {});
}

/** A sentence that says what to do. */
export function advice(error: unknown): string {
  const { name, message } = error as Error;
  if (error instanceof ServerError) {
    if (error.code === "unauthorized") asksForKey.value = true;
    return SENTENCES[error.code] ?? sentence(error);
  }
  const found = SENTENCES[(error as ConureError).code ?? ""] ?? SENTENCES[name];
  return found ?? `${capital(message)}.`;
}

const SENTENCES: Record<string, string> = {
  NotAllowedError: "The browser does not let this page use a microphone. Allow it in the address bar, then start again.",
  NotFoundError: "There is no microphone. Connect one, then start again, or drop a recording under Files.",
  NotReadableError: "Another program keeps the microphone to itself. Close it, then start again.",
  OverconstrainedError: "That microphone is not there any more. Choose another one.",
  AbortError: "The server does not answer. Is it running? “conure serve” starts it.",
  SecurityError: "Browsers give microphones to safe pages only. Open this page at localhost, or over https.",
  busy: "The server follows as many streams as it can. Wait a moment, then start again.",
  too_many: "Your key has what it may have for now. Wait a moment, then start again.",
  unauthorized: "The server asks for a key, and this is none that it knows. Enter one, then start again.",
  forbidden: "Your key is not for this. Ask whoever runs the server for another one.",
  cannot_connect: "The server does not answer. Is it running? “conure serve” starts it.",
  connection_lost: "The connection broke and could not be taken up again. What was said before is here; start again for the rest.",
  server_stopped: "The server was stopped. What was said is here; start again when it is back.",
  lag_exceeded: "The machine is too slow for what it was asked for. What was said is here; start again with a longer delay.",
  unsupported_audio: "This is no recording that can be read. Try another file.",
  audio_too_long: "The recording is larger than the server takes. Cut it, or ask whoever runs the server.",
};

function sentence(error: ConureError): string {
  return `${capital(error.message)}.${error.hint ? ` ${capital(error.hint)}.` : ""}`;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, "");
}
