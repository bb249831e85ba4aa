/** A table in a panel that scrolls if the table is wider than the page. */

import type { ComponentChildren } from "preact";

/** The head of a column: a name alone, or with how the column is shown. */
export type Column = string | { name: string; number?: boolean; hidden?: boolean };

interface Props {
  /** The name for screen readers, or the id of the heading that has it. */
  label?: string;
  labelledBy?: string;
  columns: Column[];
  /** The rows. */
  children: ComponentChildren;
  /** The number of rows, if the children are a `LongBody`. */
  rows?: number;
  /** What is shown instead of rows, if there are none. */
  empty?: ComponentChildren;
}

export const number = (name: string): Column => ({ name, number: true });

export function Table({ label, labelledBy, columns, children, rows, empty }: Props) {
  return (
    <div class="panel scroll" role="region" aria-label={label} aria-labelledby={labelledBy} tabIndex={0}>
      <table aria-rowcount={rows === undefined ? undefined : rows + 1}>
        <thead>
          <tr aria-rowindex={rows === undefined ? undefined : 1}>
            {columns.map((column) => {
              const { name, number, hidden } = typeof column === "string" ? { name: column } : column;
              return (
                <th key={name} scope="col" class={number ? "number" : undefined}>
                  {hidden ? <span class="hidden">{name}</span> : name}
                </th>
              );
            })}
          </tr>
        </thead>
        {rows === undefined ? <tbody>{children}</tbody> : children}
      </table>
      {empty}
    </div>
  );
}
