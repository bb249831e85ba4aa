// The body of a table that may have many rows.

import type { ComponentChildren } from "preact";
import { useRows } from "./rows";

interface Props<T> {
  items: T[];
  columns: number;
  /** Return a row with this `aria-rowindex`. */
  row: (item: T, index: number) => ComponentChildren;
}

/** Rows of equal height. The table needs `aria-rowcount`. */
export function LongBody<T>({ items, columns, row }: Props<T>) {
  const { body, first, end, before, after } = useRows(items.length);
  return (
    <tbody ref={body}>
      {before > 0 && <LeftOut height={before} columns={columns} />}
      {/* The head is row 1. */}
      {items.slice(first, end).map((item, index) => row(item, first + index + 2))}
      {after > 0 && <LeftOut height={after} columns={columns} />}
    </tbody>
  );
}

function LeftOut({ height, columns }: { height: number; columns: number }) {
  return (
    <tr class="left-out" aria-hidden="true">
      <td colSpan={columns} style={{ height: `${height}px` }} />
    </tr>
  );
}
