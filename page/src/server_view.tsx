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
        <Chart label="Live streams" values={streams} unit="" digits={0} more={told?.capacity && `room for ${told.capacity.join(" to ")}`} />
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
          <ul class="models" aria-label="Models">
            {told.models.map(({ name, use, runner, holds }) => (
              <li class="card">
                <h2>{name}</h2>
                <p class="facts">
                  <span>{use}</span>
                  <span>{runner}</span>
                </p>
                {holds.length > 0 && (
                  <p class="facts">
                    In time{" "}
                    {holds.map((held) => (
                      <span>{held}</span>
                    ))}
                  </p>
                )}
              </li>
            ))}
          </ul>
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
  /** Instead of how much it was at most. */
  more?: string | null | undefined;
}

const WIDTH = 240;
const HEIGHT = 60;
/** Measurements that a chart has room for at first; it grows to all that are kept. */
const PLACES = 30;

function Chart({ label, values, unit, digits, more }: ChartProps): JSX.Element {
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
      <p class="facts">
        {more ? <span>{more}</span> : values.length > 0 && <span>at most {text(Math.max(...values))}</span>}
      </p>
    </figure>
  );
}
