// Lines over time, by uPlot, and percentiles on a line of their own.
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { duration, rate } from "./format";
import type { Percentiles } from "./model";
import { None } from "./parts";
import { isDark } from "./theme";

export interface Line {
  name: string;
  /** The custom property that has its colour. */
  color: string;
  dash?: number[];
  values: (number | null)[];
}

const HEIGHT = 180;

export function Chart({ label, times, lines }: { label: string; times: number[]; lines: Line[] }) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [index, setIndex] = useState<number | null>(null);
  const dark = isDark.value;
  const data = [times, ...lines.map((line) => line.values)] as uPlot.AlignedData;

  useEffect(() => {
    const element = box.current!;
    const style = getComputedStyle(document.documentElement);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: color("--soft"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    const made = new uPlot(
      {
        width: element.clientWidth || 300,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1)] } },
        axes: [
          { ...axis, space: 70, size: 28, values: (_, splits) => splits.map(timeOfDay) },
          { ...axis, size: 44, values: (_, splits) => splits.map((n) => String(Number(n.toPrecision(3)))) },
        ],
        series: [
          {},
          ...lines.map((line) => ({
            stroke: color(line.color),
            width: 1.75,
            dash: line.dash,
            points: { show: false },
            spanGaps: false,
          })),
        ],
        hooks: { setCursor: [(u: uPlot) => setIndex(u.cursor.idx ?? null)] },
      },
      data,
      element,
    );
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [dark, lines.map((line) => line.name).join()]);
  useEffect(() => plot.current?.setData(data), [times, lines]);

  const at = index === null || index >= times.length ? times.length - 1 : index;
  return (
    <figure class="chart" aria-label={label}>
      <figcaption>
        <span class="legend-time">{index === null ? "latest" : times[at] === undefined ? "" : timeOfDay(times[at]!)}</span>
        {lines.map((line) => (
          <span key={line.name} class="legend">
            <svg width="18" height="8" viewBox="0 0 18 8" aria-hidden="true">
              <path d="M1 4h16" class={`stroke-${line.name}`} stroke-dasharray={line.dash?.join(" ")} />
            </svg>
            {line.name} <b class="number">{rate(line.values[at]).join("")}</b>
          </span>
        ))}
      </figcaption>
      <div ref={box} class="plot" />
    </figure>
  );
}

const timeOfDay = (seconds: number): string => {
  const date = new Date(seconds * 1000);
  const two = (n: number) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}${date.getSeconds() ? `:${two(date.getSeconds())}` : ""}`;
};

/** From the half to the slowest hundredth, on a logarithmic line from 1 ms to `most`. */
export function Spread({ of, most, what }: { of: Percentiles | null | undefined; most: number; what: string }) {
  if (!of || !of.count || of.p50 == null) return <None />;
  const least = 0.001;
  const x = (seconds: number | null) =>
    4 + (112 * Math.log(Math.max(least, seconds ?? least) / least)) / Math.log(Math.max(most, 0.1) / least);
  const [p50, p95, p99] = [x(of.p50), x(of.p95), x(of.p99)];
  return (
    <span
      class="spread"
      title={`${what}: half within ${duration(of.p50)}, 95 % within ${duration(of.p95)}, 99 % within ${duration(of.p99)}; of the newest ${of.count}`}
    >
      <svg viewBox="0 0 120 14" width="120" height="14" aria-hidden="true">
        <path d="M4 7h112" class="spread-base" />
        <path d={`M${p50} 7H${p99}`} class="spread-tail" />
        <path d={`M${p50} 7H${p95}`} class="spread-body" />
        <circle cx={p50} cy="7" r="3.6" class="spread-half" />
        <path d={`M${p99} 3.5v7`} class="spread-end" />
      </svg>
      <span class="number">{duration(of.p50)}</span>
      <span class="number soft">{duration(of.p95)}</span>
    </span>
  );
}
