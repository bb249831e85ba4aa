// Rows of a long table: only those near the window are in the document.

import { useEffect, useRef, useState } from "preact/hooks";
import type { RefObject } from "preact";

/** Up to this number all rows are in the document. */
const ALL = 60;
/** Rows before and after the visible ones, so that the keyboard and quick scrolling find them. */
const MORE = 12;
/** Height of a row until one was measured. */
const HEIGHT = 45;

export interface Rows {
  /** For the `tbody`. */
  body: RefObject<HTMLTableSectionElement | null>;
  first: number;
  end: number;
  /** Heights of what is left out, in pixels. */
  before: number;
  after: number;
}

/** Return which of `count` rows of equal height to render. */
export function useRows(count: number): Rows {
  const body = useRef<HTMLTableSectionElement>(null);
  const height = useRef(HEIGHT);
  const [first, setFirst] = useState(0);
  const [shown, setShown] = useState(ALL);
  const long = count > ALL;
  useEffect(() => {
    if (!long) return;
    const update = () => {
      const element = body.current;
      if (element === null) return;
      const row = element.querySelector("tr:not(.left-out)");
      height.current = row?.getBoundingClientRect().height || height.current;
      const above = -element.getBoundingClientRect().top / height.current;
      // In steps, so that not each pixel renders the table again.
      setFirst(Math.max(0, Math.floor(above / MORE) * MORE - MORE));
      setShown(Math.ceil(innerHeight / height.current / MORE) * MORE + 3 * MORE);
    };
    update();
    addEventListener("scroll", update, { passive: true });
    addEventListener("resize", update, { passive: true });
    return () => {
      removeEventListener("scroll", update);
      removeEventListener("resize", update);
    };
  }, [long, count]);
  if (!long) return { body, first: 0, end: count, before: 0, after: 0 };
  const start = Math.min(first, Math.max(0, count - shown));
  const end = Math.min(count, start + shown);
  return { body, first: start, end, before: start * height.current, after: (count - end) * height.current };
}
