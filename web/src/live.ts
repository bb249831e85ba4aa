// The state of the mesh, kept up to date by one stream of changes. The stream is closed while the
// page is hidden.

import { useEffect, useReducer } from "preact/hooks";
import { get, Problem, stream } from "./session";
import type { Call, Daemon, Event, LiveUpdate, Service, Sparkline } from "./types";

/** Seconds of a sparkline. */
export const SPARK_SECONDS = 900;
/** Seconds of a step of a sparkline. */
export const SPARK_STEP = 10;
/** Points of a sparkline. */
export const SPARK_POINTS = SPARK_SECONDS / SPARK_STEP;
const MAX_EVENTS = 2000;
const MAX_RETRY_MS = 8000;

/** The recent past of one service. A new object whenever it changes, so that it can be compared. */
export interface Spark {
  last: number;
  rps: (number | null)[];
  p95: (number | null)[];
  errors: (number | null)[];
}

export type Connection = "connecting" | "open" | "lost" | "signed-out";

export function keyOf(service: { project: string; name: string }): string {
  return `${service.project}/${service.name}`;
}

export class Live {
  services = new Map<string, Service>();
  sorted: Service[] = [];
  sparks = new Map<string, Spark>();
  calls: Call[] = [];
  events: Event[] = [];
  daemon: Daemon | null = null;
  at = 0;
  connection: Connection = "connecting";
  private readonly listeners = new Set<() => void>();
  private abort: AbortController | null = null;
  private wanted = false;

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  start(): void {
    this.wanted = true;
    document.addEventListener("visibilitychange", () => this.follow());
    this.follow();
  }

  stop(): void {
    this.wanted = false;
    this.abort?.abort();
  }

  private follow(): void {
    if (!this.wanted || document.hidden) {
      this.abort?.abort();
      this.abort = null;
    } else if (this.abort === null) {
      this.abort = new AbortController();
      void this.run(this.abort.signal);
    }
  }

  private async run(signal: AbortSignal): Promise<void> {
    let pause = 500;
    while (!signal.aborted) {
      try {
        const sparklines = this.loadSparklines(signal);
        await stream<LiveUpdate>(
          "/v1/live?follow=1",
          (update) => {
            pause = 500;
            this.apply(update);
          },
          signal,
        );
        await sparklines;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem && error.status === 401) {
          this.set("signed-out");
          return;
        }
      }
      if (signal.aborted) return;
      this.set("lost");
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(pause * 2, MAX_RETRY_MS);
    }
  }

  private set(connection: Connection): void {
    this.connection = connection;
    this.emit();
  }

  private emit(): void {
    for (const listener of this.listeners) listener();
  }

  private async loadSparklines(signal: AbortSignal): Promise<void> {
    const since = Math.floor(Date.now() / 1000) - SPARK_SECONDS;
    const found = await get<Sparkline[]>(`/v1/sparklines?since=${since}`, signal).catch(() => []);
    for (const each of found) {
      // What was before the service's first step is left out.
      const begin = Math.max(each.ready.length - SPARK_POINTS, each.ready.findIndex((ready) => ready !== null), 0);
      const cut = (values: (number | null)[]) => values.slice(begin);
      this.sparks.set(each.service, {
        last: Math.floor(each.first / each.step) + each.rps.length - 1,
        rps: cut(each.rps),
        p95: cut(each.p95),
        errors: cut(each.errors),
      });
    }
    this.emit();
  }

  private apply(update: LiveUpdate): void {
    if (update.full) {
      this.services = new Map();
      this.events = [];
    }
    for (const key of update.removed) this.services.delete(key);
    for (const service of update.services) this.services.set(keyOf(service), service);
    if (update.events.length) this.events = [...this.events, ...update.events].slice(-MAX_EVENTS);
    if (update.full || update.services.length || update.removed.length) {
      this.sorted = [...this.services.values()].sort((a, b) => keyOf(a).localeCompare(keyOf(b)));
    }
    this.calls = update.calls;
    this.daemon = update.daemon;
    this.at = update.at;
    this.connection = "open";
    this.extendSparks(Math.floor(update.at / SPARK_STEP));
    this.emit();
  }

  /** Add a point to each sparkline when a step begins; a young one also shows the current step. */
  private extendSparks(step: number): void {
    for (const [key, service] of this.services) {
      const before = this.sparks.get(key);
      if (before === undefined || before.last < step) {
        const base = before ?? { last: step - 1, rps: [], p95: [], errors: [] };
        const gap = new Array<null>(Math.min(step - base.last - 1, SPARK_POINTS)).fill(null);
        const add = (values: (number | null)[], value: number | null) =>
          [...values, ...gap, value].slice(-SPARK_POINTS);
        this.sparks.set(key, {
          last: step,
          rps: add(base.rps, service.rps),
          p95: add(base.p95, service.p95),
          errors: add(base.errors, service.errors_per_second),
        });
      }
    }
  }
}

export const live = new Live();

/** Render the component again with each update. */
export function useLive(): Live {
  const [, render] = useReducer((count: number) => count + 1, 0);
  useEffect(() => live.subscribe(() => render(undefined as never)), []);
  return live;
}
