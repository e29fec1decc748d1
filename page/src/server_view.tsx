/** The view of the server: how much it has to do, and how much it could. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { facts, fault, measured, watch, type Facts } from "./measured";
import { duration } from "./time";

const STATES: Record<Facts["status"], string> = {
  ready: "Ready",
  restarting: "Starting its models again",
  draining: "Stopping: it takes nothing new",
};

export function ServerView(): JSX.Element {
  useEffect(watch, []);
  const { streams, delay, busy, memory } = measured.value;
  const told = facts.value;
  return (
    <section aria-label="Server" class="server">
      {fault.value && (
        <p role="alert" class="notice bad">
          {fault.value}
        </p>
      )}
      <div class="charts">
        <Chart
          label="Live streams"
          values={streams}
          text={String}
          below={told && room(told.capacity)}
          meaning="Microphones and programs that it listens to now, and the most that it can follow in time, which depends on model and delay."
        />
        <Chart
          label="Delay"
          values={delay}
          text={(seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`)}
          meaning="How long live sound waits before the model has heard it. Above 2 s it has too much to do."
        />
        <Chart
          label="Busy"
          values={busy}
          text={(part) => `${Math.round(part * 100)} %`}
          top={1}
          meaning="The part of the time in which the models compute. Recordings fill what live streams leave."
        />
        <Chart
          label="Memory"
          values={memory}
          text={(bytes) => (bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`)}
          meaning="What its processes have. What they share counts for each."
        />
      </div>
      {told && (
        <>
          <p class="facts">
            <span>{STATES[told.status] ?? told.status}</span>
            <span>running for {duration(told.uptime)}</span>
            <span title="How often the process that runs the models crashed and was started again. Streams go on after it.">
              {restarts(told.restarts)}
            </span>
          </p>
          <ul class="models" aria-label="Models">
            {told.models.map(({ name, use, runner, holds }) => (
              <li class="card">
                <h2>{name}</h2>
                <p class="facts">
                  <span>for {use}</span>
                  <span title="What runs the model, and where">{runner}</span>
                </p>
                {holds.length > 0 && <p class="facts">Live streams that it can follow in time, as measured on this machine:</p>}
                {holds.length > 0 && (
                  <table aria-label="Live streams that it can follow">
                    <thead>
                      <tr>
                        <th scope="col">Delay</th>
                        <th scope="col">At most</th>
                      </tr>
                    </thead>
                    <tbody>
                      {holds.map(({ delay, streams }) => (
                        <tr>
                          <td>{delay} ms</td>
                          <td>{streams}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                )}
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function room(capacity: Facts["capacity"]): string {
  if (!capacity) return "at most: not known";
  const [fewest, most] = capacity;
  return fewest === most ? `of ${most} at most` : `of ${fewest} to ${most} at most`;
}

function restarts(count: number | null): string {
  if (count === null) return "crashes: not known";
  return count === 0 ? "no crash" : count === 1 ? "1 crash that it came back from" : `${count} crashes that it came back from`;
}

interface ChartProps {
  label: string;
  /** Null where it is not known. */
  values: (number | null)[];
  text: (value: number) => string;
  /** Of the chart; without it the most that was measured. */
  top?: number;
  /** Instead of the most that was measured. */
  below?: string | null;
  /** What an operator should know about it. */
  meaning: string;
}

const WIDTH = 240;
const HEIGHT = 60;
/** Measurements that a chart has room for at first; it grows to all that are kept. */
const PLACES = 30;

function Chart({ label, values, text, top, below, meaning }: ChartProps): JSX.Element {
  const known = values.filter((value) => value !== null);
  const now = values.at(-1) ?? null;
  const most = top ?? Math.max(...known, 1e-9);
  const places = Math.max(PLACES, values.length);
  const x = (index: number) => (((index + places - values.length) / (places - 1)) * WIDTH).toFixed(1);
  const y = (value: number) => (HEIGHT - 2 - (value / most) * (HEIGHT - 6)).toFixed(1);
  const peak = known.length > 0 ? `at most ${text(Math.max(...known))}` : "";
  return (
    <figure class="chart" title={meaning}>
      <figcaption>
        <span>{label}</span>
        <strong>{values.length === 0 ? "–" : now === null ? "not known" : text(now)}</strong>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${label} over the last ${places} seconds`}>
        {runs(values).map((run) => {
          const line = run.map(({ index, value }) => `${x(index)},${y(value)}`).join(" ");
          const [first, last] = [x(run[0]!.index), x(run.at(-1)!.index)];
          return (
            <>
              <polygon points={`${first},${HEIGHT} ${line} ${last},${HEIGHT}`} />
              <polyline points={line} />
            </>
          );
        })}
      </svg>
      <p class="facts">{below ?? peak}</p>
      <p class="meaning">{meaning}</p>
    </figure>
  );
}

/** Stretches without a gap. */
function runs(values: (number | null)[]): { index: number; value: number }[][] {
  const found: { index: number; value: number }[][] = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index > 0 && values[index - 1] != null) found.at(-1)!.push({ index, value });
    else found.push([{ index, value }]);
  });
  return found;
}
