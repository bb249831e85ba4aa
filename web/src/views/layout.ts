// Where the services of the map are: in columns, each one after its callers. An edge over several
// columns gets a place in each column between, so that it passes no service.

import type { Call } from "../types";

export const WIDTH = 160;
export const HEIGHT = 56;
const GAP_X = 176;
const GAP_Y = 26;
const PASSAGE = 18;
const MARGIN = 18;
const LABEL = 17;
const SWEEPS = 4;
export const OUTSIDE = "";

export interface Place {
  key: string;
  x: number;
  y: number;
}

export interface Line {
  call: Call;
  path: string;
  labelX: number;
  labelY: number;
}

export interface Layout {
  places: Place[];
  lines: Line[];
  width: number;
  height: number;
}

interface Slot {
  id: string;
  column: number;
  size: number;
  before: string[];
  y: number;
}

function depths(keys: string[], callers: Map<string, string[]>): Map<string, number> {
  const depth = new Map<string, number>([[OUTSIDE, 0]]);
  const visit = (key: string, path: Set<string>): number => {
    const known = depth.get(key);
    if (known !== undefined) return known;
    if (path.has(key)) return 0;
    path.add(key);
    const found = 1 + Math.max(0, ...(callers.get(key) ?? []).map((caller) => visit(caller, path)));
    path.delete(key);
    depth.set(key, found);
    return found;
  };
  for (const key of keys) visit(key, new Set());
  return depth;
}

export function layOut(keys: string[], calls: Call[]): Layout {
  const callers = new Map<string, string[]>();
  for (const call of calls) callers.set(call.service, [...(callers.get(call.service) ?? []), call.caller]);
  const depth = depths(keys, callers);
  const slots = new Map<string, Slot>();
  for (const key of [OUTSIDE, ...keys]) slots.set(key, { id: key, column: depth.get(key)!, size: HEIGHT, before: [], y: 0 });
  // The ids of the slots that each call passes, from its caller to its service.
  const ways = calls.map((call) => {
    const way = [call.caller];
    const last = depth.get(call.service)!;
    for (let column = depth.get(call.caller)! + 1; column < last; column++) {
      const id = `${call.caller}>${call.service}>${column}`;
      slots.set(id, { id, column, size: PASSAGE, before: [], y: 0 });
      way.push(id);
    }
    way.push(call.service);
    for (let index = 1; index < way.length; index++) {
      const slot = slots.get(way[index]!)!;
      if (slot.column > slots.get(way[index - 1]!)!.column) slot.before.push(way[index - 1]!);
    }
    return way;
  });
  const columns: Slot[][] = [];
  for (const slot of slots.values()) (columns[slot.column] ??= []).push(slot);
  const height = place(columns, slots);
  const x = (column: number) => MARGIN + column * (WIDTH + GAP_X);
  const lines = calls.map((call, index) => draw(call, ways[index]!.map((id) => slots.get(id)!), x));
  spreadLabels(lines);
  return {
    places: [OUTSIDE, ...keys].map((key) => {
      const slot = slots.get(key)!;
      return { key, x: x(slot.column), y: slot.y };
    }),
    lines,
    width: 2 * MARGIN + columns.length * (WIDTH + GAP_X) - GAP_X,
    height,
  };
}

/** Order each column by the places of its callers, and of those that it calls; return the height. */
function place(columns: Slot[][], slots: Map<string, Slot>): number {
  const after = new Map<string, Slot[]>();
  for (const slot of slots.values()) for (const id of slot.before) after.set(id, [...(after.get(id) ?? []), slot]);
  const used = (column: Slot[]) => column.reduce((sum, slot) => sum + slot.size + GAP_Y, -GAP_Y);
  const height = Math.max(...columns.map(used)) + 2 * MARGIN;
  const stack = (column: Slot[]) => {
    let y = (height - used(column)) / 2;
    for (const slot of column) {
      slot.y = y;
      y += slot.size + GAP_Y;
    }
  };
  columns.forEach(stack);
  const middle = (near: Slot[], own: Slot) =>
    near.length ? near.reduce((sum, slot) => sum + slot.y + slot.size / 2, 0) / near.length : own.y + own.size / 2;
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const forwards = sweep % 2 === 0;
    for (const column of forwards ? columns : [...columns].reverse()) {
      const rank = new Map(
        column.map((slot) => [slot.id, middle(forwards ? slot.before.map((id) => slots.get(id)!) : (after.get(slot.id) ?? []), slot)]),
      );
      column.sort((a, b) => rank.get(a.id)! - rank.get(b.id)! || a.id.localeCompare(b.id));
      stack(column);
    }
  }
  return height;
}

function draw(call: Call, way: Slot[], x: (column: number) => number): Line {
  const centre = (slot: Slot) => slot.y + slot.size / 2;
  const first = way[0]!;
  const last = way[way.length - 1]!;
  const start = x(first.column) + WIDTH;
  let path = `M${start} ${centre(first)}`;
  if (last.column <= first.column) {
    // A call against the direction: around the outside of both.
    const low = Math.max(centre(first), centre(last)) + HEIGHT;
    path += `C${start + 70} ${low} ${x(last.column) - 70} ${low} ${x(last.column)} ${centre(last)}`;
    return { call, path, labelX: (start + x(last.column)) / 2, labelY: low - HEIGHT / 4 };
  }
  let fromX = start;
  let fromY = centre(first);
  for (const slot of way.slice(1)) {
    const toX = x(slot.column);
    const y = centre(slot);
    const bend = (toX - fromX) / 2;
    path += `C${fromX + bend} ${fromY} ${toX - bend} ${y} ${toX} ${y}`;
    if (slot !== last) path += `L${toX + WIDTH} ${y}`;
    else return { call, path, labelX: toX - GAP_X / 2, labelY: (fromY + y) / 2 };
    fromX = toX + WIDTH;
    fromY = y;
  }
  return { call, path, labelX: fromX, labelY: fromY };
}

/** Move labels of the same column apart, as little as possible. */
function spreadLabels(lines: Line[]): void {
  const groups = new Map<number, Line[]>();
  for (const line of lines) groups.set(line.labelX, [...(groups.get(line.labelX) ?? []), line]);
  for (const group of groups.values()) {
    group.sort((a, b) => a.labelY - b.labelY);
    for (let pass = 0; pass < group.length; pass++) {
      for (let index = 1; index < group.length; index++) {
        const above = group[index - 1]!;
        const below = group[index]!;
        const overlap = LABEL - (below.labelY - above.labelY);
        if (overlap > 0) {
          above.labelY -= overlap / 2;
          below.labelY += overlap / 2;
        }
      }
    }
  }
}
