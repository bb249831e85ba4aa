// Numbers and times as text for people.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });

export function rate(value: number): string {
  if (value >= 10_000) return `${(value / 1000).toFixed(0)}k`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)}k`;
  if (value >= 100) return value.toFixed(0);
  if (value >= 0.05) return value.toFixed(1);
  return "0";
}

export function seconds(value: number | null): string {
  if (value === null) return "–";
  if (value < 0.001) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 10) return `${value.toFixed(2)} s`;
  return `${value.toFixed(0)} s`;
}

export function percent(part: number, whole: number): string {
  if (whole <= 0) return "–";
  const value = (part / whole) * 100;
  if (value === 0 || value === 100) return `${value}%`;
  return `${value > 99 || value < 1 ? value.toFixed(2) : value.toFixed(1)}%`;
}

export function success(rps: number, errors: number): string {
  return percent(Math.max(0, rps - errors), rps);
}

export function bytes(value: number | null): string {
  if (value === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

export function time(at: number): string {
  return clock.format(at * 1000);
}

export function date(at: number): string {
  return at ? day.format(at * 1000) : "–";
}

export function ago(at: number, now: number): string {
  const gone = Math.max(0, now - at);
  if (gone < 90) return `${gone.toFixed(0)} s`;
  if (gone < 5400) return `${(gone / 60).toFixed(0)} min`;
  if (gone < 129_600) return `${(gone / 3600).toFixed(0)} h`;
  return `${(gone / 86_400).toFixed(0)} d`;
}

export function plural(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}
