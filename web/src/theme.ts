// Light or dark: what the system prefers, unless the user chose one.

import { useEffect, useState } from "preact/hooks";

const KEY = "meshd.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

export type Theme = "light" | "dark";

function current(): Theme {
  const chosen = localStorage.getItem(KEY);
  if (chosen === "light" || chosen === "dark") return chosen;
  return dark.matches ? "dark" : "light";
}

const listeners = new Set<(theme: Theme) => void>();

export function apply(): void {
  const theme = current();
  document.documentElement.dataset["theme"] = theme;
  for (const listener of listeners) listener(theme);
}

export function toggle(): void {
  localStorage.setItem(KEY, current() === "dark" ? "light" : "dark");
  apply();
}

export function useTheme(): Theme {
  const [theme, set] = useState(current);
  useEffect(() => {
    listeners.add(set);
    return () => {
      listeners.delete(set);
    };
  }, []);
  return theme;
}

dark.addEventListener("change", apply);

/** Return the value of a color of the current theme. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
