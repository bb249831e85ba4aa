// Charts that share one time axis: lines (uPlot), a heat map, and a row of events.

import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { seconds, time } from "../format";
import { color, useTheme } from "../theme";
import type { Event, LatencyMap } from "../types";
import { toneOfEvent } from "./status";

/** Pixels of the axis at the left and of the margin at the right, the same for all charts. */
const LEFT = 58;
const RIGHT = 24;
const GROUP = "time";

export interface Series {
  label: string;
  values: (number | null)[];
  color: string;
  fill?: boolean;
  steps?: boolean;
  dashed?: boolean;
}

interface ChartProps {
  title: string;
  at: number[];
  series: Series[];
  from: number;
  to: number;
  format: (value: number) => string;
  whole?: boolean;
  /** Smallest value at the top of the axis. */
  least?: number;
  axis?: boolean;
  height?: number;
  marks?: { at: number; tone: string }[];
}

function last(values: (number | null)[]): number | null {
  for (let index = values.length - 1; index >= 0; index--) {
    const value = values[index];
    if (value !== null && value !== undefined) return value;
  }
  return null;
}

export function Chart(props: ChartProps) {
  const { title, at, series, from, to, format, whole, axis = false, height = 130 } = props;
  const theme = useTheme();
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const current = useRef(props);
  current.current = props;
  const [hovered, setHovered] = useState<number | null>(null);
  const shape = series.map((each) => each.label).join();

  useEffect(() => {
    const element = place.current!;
    const grid = { stroke: color("grid"), width: 1 };
    const font = "11px system-ui, sans-serif";
    const markEvents = (chart: uPlot) => {
      const { ctx, bbox } = chart;
      ctx.save();
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      for (const mark of current.current.marks ?? []) {
        const x = Math.round(chart.valToPos(mark.at, "x", true));
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.strokeStyle = color(mark.tone);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.restore();
    };
    const chart = new uPlot(
      {
        width: element.clientWidth,
        height,
        padding: [8, RIGHT, axis ? 0 : 6, 0],
        legend: { show: false },
        cursor: { sync: { key: GROUP }, points: { size: 6 }, y: false, drag: { x: false, y: false } },
        hooks: {
          drawClear: [markEvents],
          setCursor: [(self) => setHovered(self.cursor.idx ?? null)],
        },
        scales: {
          x: { time: true, range: () => [current.current.from, current.current.to] },
          y: { range: (_, __, most) => [0, Math.max(most * 1.15, current.current.least ?? 1)] },
        },
        axes: [
          {
            show: true,
            size: axis ? 26 : 0,
            stroke: color("muted"),
            grid,
            ticks: { show: false },
            font,
            space: 64,
            incrs: [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400],
            values: (_, splits, __, ___, step) => (axis ? splits.map((split) => time(split).slice(0, step < 60 ? 8 : 5)) : splits.map(() => "")),
          },
          {
            size: LEFT,
            stroke: color("muted"),
            grid,
            ticks: { show: false },
            font,
            gap: 8,
            space: 28,
            incrs: whole ? [1, 2, 5, 10, 20, 50, 100] : undefined,
            values: (_, splits) => splits.map((split) => current.current.format(split)),
          },
        ],
        series: [
          {},
          ...series.map((each) => ({
            label: each.label,
            stroke: color(each.color),
            width: 1.5,
            spanGaps: true,
            fill: each.fill ? `color-mix(in srgb, ${color(each.color)} 14%, transparent)` : undefined,
            paths: each.steps ? uPlot.paths.stepped!({ align: 1 }) : undefined,
            dash: each.dashed ? [4, 3] : undefined,
            points: { show: false },
          })),
        ],
      },
      [at, ...series.map((each) => each.values)] as uPlot.AlignedData,
      element,
    );
    plot.current = chart;
    const observer = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [theme, shape, height, axis]);

  useEffect(() => {
    plot.current?.setData([at, ...series.map((each) => each.values)] as uPlot.AlignedData);
  }, [at, from, to]);

  const summary = series.map((each) => `${each.label} ${describe(last(each.values), format)}`).join(", ");
  return (
    <figure class="chart">
      <figcaption>
        <span class="title">{title}</span>
        {hovered !== null && at[hovered] !== undefined && <span class="legend">{time(at[hovered]!)}</span>}
        {series.map((each) => (
          <span class="legend" key={each.label}>
            <i class={each.dashed ? "swatch dashed" : "swatch"} style={{ borderColor: `var(--${each.color})` }} aria-hidden="true" />
            {each.label} <output>{describe(hovered === null ? last(each.values) : (each.values[hovered] ?? null), format)}</output>
          </span>
        ))}
      </figcaption>
      <div ref={place} role="img" aria-label={`${title}: ${summary}`} style={{ height: `${height}px` }} />
    </figure>
  );
}

function describe(value: number | null, format: (value: number) => string): string {
  return value === null ? "–" : format(value);
}

/** Draw the counts of latencies: time to the right, latency upwards, darker for more answers. */
export function HeatMap({ map, from, to, height = 150 }: { map: LatencyMap | null; from: number; to: number; height?: number }) {
  const theme = useTheme();
  const canvas = useRef<HTMLCanvasElement>(null);

  useEffect(() => {
    const element = canvas.current!;
    const paint = () => {
      const ratio = devicePixelRatio;
      const width = element.clientWidth;
      element.width = width * ratio;
      element.height = height * ratio;
      const context = element.getContext("2d")!;
      context.scale(ratio, ratio);
      context.clearRect(0, 0, width, height);
      if (map === null) return;
      const used = map.counts.flatMap((column) => column.flatMap((count, row) => (count ? [row] : [])));
      const low = Math.max(0, Math.min(...used, 8) - 1);
      const high = Math.min(map.bounds.length, Math.max(...used, 12) + 1);
      const most = Math.max(1, ...map.counts.flat());
      const plotWidth = width - LEFT - RIGHT;
      const cell = (height - 8) / (high - low + 1);
      const x = (at: number) => LEFT + ((at - from) / (to - from)) * plotWidth;
      const y = (row: number) => height - 4 - (row - low + 1) * cell;
      context.font = "11px system-ui, sans-serif";
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (let row = low; row < high; row += Math.max(2, Math.ceil((22 / cell) / 2) * 2)) {
        context.fillStyle = color("muted");
        context.fillText(seconds(map.bounds[row]!), LEFT - 8, y(row));
        context.fillStyle = color("grid");
        context.fillRect(LEFT, Math.round(y(row)), plotWidth, 1);
      }
      context.save();
      context.beginPath();
      context.rect(LEFT, 0, plotWidth, height);
      context.clip();
      context.fillStyle = color("heat");
      map.counts.forEach((column, index) => {
        const left = x(map.first + index * map.step);
        const right = x(map.first + (index + 1) * map.step);
        if (right < LEFT || left > width) return;
        column.forEach((count, row) => {
          if (!count) return;
          context.globalAlpha = 0.12 + 0.88 * Math.sqrt(Math.log1p(count) / Math.log1p(most));
          context.fillRect(left, y(row), Math.max(1, right - left - 0.5), Math.max(1, cell - 0.5));
        });
      });
      context.restore();
    };
    paint();
    const observer = new ResizeObserver(paint);
    observer.observe(element);
    return () => observer.disconnect();
  }, [map, from, to, theme, height]);

  return (
    <figure class="chart">
      <figcaption>
        <span class="title">Latency of all answers</span>
        <span class="legend">stronger: more answers, in steps of 10 s</span>
      </figcaption>
      <canvas ref={canvas} role="img" aria-label={describeMap(map)} style={{ height: `${height}px` }} />
    </figure>
  );
}

function describeMap(map: LatencyMap | null): string {
  if (map === null) return "Latency heat map: loading";
  const rows = map.bounds.map((_, row) => map.counts.reduce((sum, column) => sum + (column[row] ?? 0), 0));
  const most = rows.indexOf(Math.max(...rows));
  const total = rows.reduce((sum, count) => sum + count, 0);
  if (!total) return "Latency heat map: no answers";
  return `Latency heat map of ${total} answers; most took up to ${seconds(map.bounds[most] ?? 0)}`;
}

/** A mark for each event, at its time. */
export function EventRow({ events, from, to, onChoose }: { events: Event[]; from: number; to: number; onChoose: (event: Event) => void }) {
  const shown = events.filter((event) => event.at >= from && event.at <= to);
  return (
    <figure class="chart events-row">
      <figcaption>
        <span class="title">Events</span>
        <span class="legend">{shown.length ? "choose a mark to read it" : "none in this time"}</span>
      </figcaption>
      <div class="track" style={{ marginLeft: `${LEFT}px`, marginRight: `${RIGHT}px` }}>
        {shown.map((event) => (
          <button
            key={event.id}
            type="button"
            class={`mark-button ${toneOfEvent(event.kind)}`}
            style={{ left: `${((event.at - from) / (to - from)) * 100}%` }}
            title={`${time(event.at)} ${event.kind}: ${event.text}`}
            aria-label={`${time(event.at)} ${event.kind}: ${event.text}`}
            onClick={() => onChoose(event)}
          />
        ))}
      </div>
    </figure>
  );
}
