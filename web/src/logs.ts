// The output of a service: one stream, which continues after the last line where it was cut. The
// server sends each line with the time at which it was written; lines of one time are counted.

import { Problem, stream } from "./session";
import type { LogLine, Service } from "./types";
import { pathOf } from "./views/actions";

const PAST_LINES = 300;
const CATCH_UP_LINES = 10_000;
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 8000;

/** How far the output of a replica was read: `count` lines of the time `at`, and all before. */
interface Cursor {
  at: number;
  count: number;
}

/**
 * Call `take` with past and new lines of a service until `signal` aborts it, and `report` with why
 * none come at the moment; empty: they do. Resolves if there is no reason to try again.
 */
export async function followLogs(service: Service, take: (line: LogLine) => void, report: (problem: string) => void, signal: AbortSignal): Promise<void> {
  const read = new Map<string, Cursor>();
  let query = `tail=${PAST_LINES}`;
  let pause = FIRST_RETRY_MS;
  while (!signal.aborted) {
    const isUnread = skipRead(read);
    const opened = () => {
      pause = FIRST_RETRY_MS;
      report("");
    };
    const takeUnread = (line: LogLine) => {
      if (!isUnread(line)) return;
      const before = read.get(line.replica) ?? { at: 0, count: 0 };
      if (line.at > before.at) read.set(line.replica, { at: line.at, count: 1 });
      else read.set(line.replica, { at: before.at, count: before.count + (line.at === before.at ? 1 : 0) });
      take(line);
    };
    try {
      await stream<LogLine>(`${pathOf(service)}/logs?follow=1&${query}`, takeUnread, signal, opened);
      report("The stream has ended. Connecting again …");
    } catch (problem) {
      if (signal.aborted) return;
      report((problem as Error).message);
      if (problem instanceof Problem && [401, 403, 404].includes(problem.status)) return;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, MAX_RETRY_MS);
    if (read.size) {
      const since = Math.min(...[...read.values()].map((each) => each.at));
      query = `tail=${CATCH_UP_LINES}&since=${Math.floor(since)}`;
    }
  }
}

/** Return a function that tells of each line, in order, whether it comes after the read ones. */
function skipRead(read: ReadonlyMap<string, Cursor>): (line: LogLine) => boolean {
  const left = new Map(read);
  const repeated = new Map<string, number>();
  return (line) => {
    const cursor = left.get(line.replica);
    if (cursor === undefined) return true;
    if (line.at > cursor.at) {
      left.delete(line.replica);
      return true;
    }
    if (line.at < cursor.at) return false;
    repeated.set(line.replica, (repeated.get(line.replica) ?? 0) + 1);
    return repeated.get(line.replica)! > cursor.count;
  };
}
