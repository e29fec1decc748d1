/** The view of the server: how much it has to do, and how much it could. */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { facts, fault, measured, watch } from "./measured";
import { clock } from "./time";

export function ServerView(): JSX.Element {
  useEffect(watch, []);
  const { streams, lag, turn, memory } = measured.value;
  const told = facts.value;
  return (
    <section aria-label="Server" class="server">
      {fault.value && (
        <p role="alert" class="notice bad">
          {fault.value}
        </p>
      )}
      <div class="charts">
        <Chart label="Live streams" values={streams} unit="" digits={0} />
        <Chart label="Lag" values={lag} unit="ms" digits={0} />
        <Chart label="Turn" values={turn} unit="ms" digits={1} />
        <Chart label="Memory" values={memory} unit="MiB" digits={0} />
      </div>
      {told && (
        <>
          <p class="facts">
            <span>{told.status}</span>
            <span>up for {clock(told.uptime)}</span>
            <span>
              {told.restarts} restart{told.restarts === 1 ? "" : "s"} of the engine
            </span>
          </p>
          <div class="scroll" tabIndex={0} role="region" aria-label="Models">
            <table>
              <thead>
                <tr>
                  <th>Model</th>
                  <th>For</th>
                  <th>Runner</th>
                  <th>Streams in time</th>
                </tr>
              </thead>
              <tbody>
                {told.models.map(({ name, use, runner, holds }) => (
                  <tr>
                    <td>{name}</td>
                    <td>{use}</td>
                    <td>{runner}</td>
                    <td>{holds || "–"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </section>
  );
}

interface ChartProps {
  label: string;
  values: number[];
  unit: string;
  digits: number;
}

const WIDTH = 240;
const HEIGHT = 60;
/** Measurements that a chart has room for at first; it grows to all that are kept. */
const PLACES = 30;

function Chart({ label, values, unit, digits }: ChartProps): JSX.Element {
  const now = values.at(-1);
  const most = Math.max(...values, 1e-9);
  const places = Math.max(PLACES, values.length);
  const x = (index: number) => ((index + places - values.length) / (places - 1)) * WIDTH;
  const y = (value: number) => HEIGHT - 2 - (value / most) * (HEIGHT - 6);
  const line = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const text = (value: number) => `${value.toFixed(digits)}${unit && ` ${unit}`}`;
  return (
    <figure class="chart">
      <figcaption>
        <span>{label}</span>
        <strong>{now === undefined ? "–" : text(now)}</strong>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${label} over the last ${places} seconds`}>
        {values.length > 1 && <polygon points={`${x(0)},${HEIGHT} ${line} ${WIDTH},${HEIGHT}`} />}
        {values.length > 1 && <polyline points={line} />}
      </svg>
      <p class="facts">{values.length > 0 && <span>at most {text(Math.max(...values))}</span>}</p>
    </figure>
  );
}
