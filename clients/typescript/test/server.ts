/** Real servers with the tiny models, each in its own process. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    url: string;
  }
}

const OTHERS = ["--tcp-port", "0", "--status-port", "0", "--grpc-port", "0", "--wyoming-port", "0"];

export interface Server {
  url: string;
  kill(signal: NodeJS.Signals): Promise<void>;
}

export async function serve(port: string, ...options: string[]): Promise<Server> {
  const python = process.env.CONURE_PYTHON ?? "python3";
  const shown = ["-m", "conure", "serve", "--model", "tiny", "--device", "cpu", "--drain-seconds", "0", "--port", port];
  const server = spawn(python, [...shown, ...OTHERS, ...options]);
  const url = await announced(server);
  return {
    url,
    kill: async (signal) => {
      const gone = once(server, "exit");
      server.kill(signal);
      await gone;
    },
  };
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await serve("free");
  project.provide("url", server.url);
  return () => server.kill("SIGTERM");
}

async function announced(server: ChildProcess): Promise<string> {
  let url = "";
  let said = "";
  for await (const line of createInterface(server.stderr!)) {
    said += `${line}\n`;
    url = /web (https?:\S+?)(,|$)/.exec(line)?.[1] ?? url;
    if (line.startsWith("ready")) {
      server.stderr!.resume();
      return url;
    }
  }
  throw new Error(`the server did not start:\n${said}`);
}
