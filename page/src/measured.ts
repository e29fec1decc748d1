/** How the server is, looked at once a second: what it tells of itself and what it counts. */

import type { Status } from "@conure/client";
import { signal } from "@preact/signals";
import { advice, client } from "./server";

/** A measurement each second; null where nothing was to be measured. */
export interface Measured {
  /** Live streams that are open. */
  streams: (number | null)[];
  /** Seconds until live sound has become text. */
  delay: (number | null)[];
  /** The part of the time in which models compute, from 0 to 1. */
  busy: (number | null)[];
  /** Bytes of all processes. */
  memory: (number | null)[];
}

export interface Facts {
  status: Status["status"];
  uptime: number;
  restarts: number | null;
  /** The fewest and the most live streams that are followed in time, by model and delay. */
  capacity: [number, number] | null;
  models: { name: string; use: string; runner: string; holds: { delay: number; streams: number }[] }[];
}

interface Look {
  /** Seconds. */
  at: number;
  counts: Counts;
}

type Counts = Record<string, number>;

const KEPT = 120;
/** Looks that a mean is taken over. */
const WINDOW = 5;

export const measured = signal<Measured>({ streams: [], delay: [], busy: [], memory: [] });
export const facts = signal<Facts | null>(null);
export const fault = signal("");

let looks: Look[] = [];

/** Until the function that it returns is called. */
export function watch(): () => void {
  let goesOn = true;
  looks = []; // what was counted while nobody looked is no measurement of now
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
    looks = [...looks, { at: performance.now() / 1000, counts: sums(counted) }].slice(-WINDOW - 1);
    const { streams, delay, busy, memory } = measured.value;
    measured.value = {
      streams: [...streams, status.streams ?? null].slice(-KEPT),
      delay: [...delay, meanOf("conure_lag_seconds", looks)].slice(-KEPT),
      busy: [...busy, partOf("conure_step_seconds", looks)].slice(-KEPT),
      memory: [...memory, status.memory ? Object.values(status.memory).reduce((sum, bytes) => sum + bytes, 0) : null].slice(-KEPT),
    };
    facts.value = factsOf(status);
    fault.value = "";
  } catch (error) {
    fault.value = advice(error);
  }
}

function factsOf(status: Status): Facts {
  const models = status.models ?? [];
  const held = models.flatMap(({ streams }) => Object.values(streams));
  return {
    capacity: held.length ? [Math.min(...held), Math.max(...held)] : null,
    status: status.status,
    uptime: status.uptime_seconds,
    restarts: status.engine_restarts ?? null,
    models: models.map((model) => ({
      name: model.name,
      use: [model.live && "live", model.clips && "recordings"].filter(Boolean).join(" and "),
      runner: model.runner,
      holds: Object.entries(model.streams).map(([latency, streams]) => ({ delay: Number(latency), streams })),
    })),
  };
}

/** Of what a histogram has observed between the looks; null where that is nothing. */
export function meanOf(name: string, looks: Look[]): number | null {
  const count = growth(`${name}_count`, looks);
  const sum = growth(`${name}_sum`, looks);
  return count && sum !== null ? sum / count : null;
}

/** Of the time between the looks that which a histogram of seconds has observed; null where the server has none. */
export function partOf(name: string, looks: Look[]): number | null {
  const spent = growth(`${name}_sum`, looks);
  const passed = (looks.at(-1)?.at ?? 0) - (looks[0]?.at ?? 0);
  return spent === null || passed <= 0 ? null : Math.min(1, spent / passed);
}

/** Null where it is not known: before a second look, for what is not counted, and when the server was started anew. */
function growth(name: string, looks: Look[]): number | null {
  const [first, last] = [looks[0]?.counts[name], looks.at(-1)?.counts[name]];
  if (looks.length < 2 || first === undefined || last === undefined) return null;
  return last < first ? null : last - first;
}

/** Of Prometheus's text format: each metric, its labels added up. */
function sums(text: string): Counts {
  const found: Counts = {};
  for (const line of text.split("\n")) {
    const parts = /^(\w+)(?:\{.*\})? (\S+)$/.exec(line);
    if (parts) found[parts[1]!] = (found[parts[1]!] ?? 0) + Number(parts[2]);
  }
  return found;
}
