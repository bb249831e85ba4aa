// A small line without axes.

import { memo } from "preact/compat";
import { SPARK_POINTS } from "../live";

const YOUNG_POINTS = 18;

interface Props {
  values: (number | null)[];
  tone?: "accent" | "bad" | "slow";
  width?: number;
  height?: number;
}

function draw(values: (number | null)[], width: number, height: number): { line: string; area: string } {
  const known = values.filter((value): value is number => value !== null);
  const top = Math.max(...known, 1e-9) * 1.1;
  // A young one is drawn over less time, so that it can be seen.
  const points = Math.min(SPARK_POINTS, Math.max(YOUNG_POINTS, values.length));
  const step = width / (points - 1);
  const offset = points - values.length;
  let line = "";
  let area = "";
  let open = false;
  let lastX = 0;
  values.forEach((value, index) => {
    if (value === null) {
      if (open) area += `L${lastX} ${height}Z`;
      open = false;
      return;
    }
    const x = Math.round((offset + index) * step * 10) / 10;
    const y = Math.round((height - 1 - (value / top) * (height - 2)) * 10) / 10;
    line += `${open ? "L" : "M"}${x} ${y}`;
    area += open ? `L${x} ${y}` : `M${x} ${height}L${x} ${y}`;
    open = true;
    lastX = x;
  });
  if (open) area += `L${lastX} ${height}Z`;
  return { line, area };
}

export const Spark = memo(function Spark({ values, tone = "accent", width = 120, height = 28 }: Props) {
  if (values.length < 2) return <svg class="spark" width={width} height={height} aria-hidden="true" />;
  const { line, area } = draw(values, width, height);
  return (
    <svg class={`spark ${tone}`} viewBox={`0 0 ${width} ${height}`} width={width} height={height} preserveAspectRatio="none" aria-hidden="true">
      <path class="area" d={area} />
      <path class="line" d={line} />
    </svg>
  );
});
