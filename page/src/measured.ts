/** How the server is, looked at once a second: what it tells of itself and what it counts. */

import { signal } from "@preact/signals";
import { advice, client } from "./server";

export interface Measured {
  streams: number[];
  lag: number[];
  turn: number[];
  memory: number[];
}

export interface Facts {
  status: string;
  uptime: number;
  restarts: number;
  /** The fewest and the most live streams that are held in time, by model and delay. */
  capacity: [number, number] | null;
  models: { name: string; use: string; runner: string; holds: string[] }[];
}

const KEPT = 120;

export const measured = signal<Measured>({ streams: [], lag: [], turn: [], memory: [] });
export const facts = signal<Facts | null>(null);
export const fault = signal("");

let before: Record<string, number> = {};

/** Until the function that it returns is called. */
export function watch(): () => void {
  let goesOn = true;
  const look = async () => {
    await measure();
    if (goesOn) setTimeout(look, 1000);
  };
  void look();
  return () => (goesOn = false);
}

async function measure(): Promise<void> {
  try {
    const [status, counted] = await Promise.all([client().status(), client().metrics()]);
    const now = sums(counted);
    const mean = (name: string) => {
      const count = (now[`${name}_count`] ?? 0) - (before[`${name}_count`] ?? 0);
      return count > 0 ? ((now[`${name}_sum`] ?? 0) - (before[`${name}_sum`] ?? 0)) / count : 0;
    };
    const memory = Object.values(status.memory ?? {}).reduce((sum, bytes) => sum + bytes, 0);
    const last = Object.keys(before).length ? [mean("conure_lag_seconds"), mean("conure_turn_seconds")] : [0, 0];
    before = now;
    const { streams, lag, turn, memory: bytes } = measured.value;
    measured.value = {
      streams: [...streams, status.streams].slice(-KEPT),
      lag: [...lag, last[0]! * 1000].slice(-KEPT),
      turn: [...turn, last[1]! * 1000].slice(-KEPT),
      memory: [...bytes, memory / 2 ** 20].slice(-KEPT),
    };
    const held = status.models.flatMap(({ streams }) => Object.values(streams));
    facts.value = {
      capacity: held.length ? [Math.min(...held), Math.max(...held)] : null,
      status: status.status,
      uptime: status.uptime_seconds,
      restarts: status.engine_restarts,
      models: status.models.map((model) => ({
        name: model.name,
        use: [model.live && "live", model.clips && "recordings"].filter(Boolean).join(", "),
        runner: model.runner,
        holds: Object.entries(model.streams).map(([latency, count]) => `${count} at ${latency} ms`),
      })),
    };
    fault.value = "";
  } catch (error) {
    fault.value = advice(error);
  }
}

/** Of Prometheus's text format: each metric, its labels added up. */
function sums(text: string): Record<string, number> {
  const found: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const parts = /^(\w+)(?:\{.*\})? (\S+)$/.exec(line);
    if (parts) found[parts[1]!] = (found[parts[1]!] ?? 0) + Number(parts[2]);
  }
  return found;
}
