// How the state of services and replicas looks. A state is never shown by its color alone.

import type { Replica, Service } from "../types";

export type Tone = "good" | "warn" | "bad" | "busy" | "idle";

const SERVICE_TONES: Record<string, Tone> = {
  ok: "good",
  completed: "good",
  idle: "idle",
  starting: "busy",
  rolling: "busy",
  paused: "warn",
  waiting: "warn",
  degraded: "warn",
  backoff: "bad",
  "crash-loop": "bad",
  failed: "bad",
};

export function toneOf(service: Service): Tone {
  return SERVICE_TONES[service.state] ?? "busy";
}

export function needsAttention(service: Service): boolean {
  const tone = toneOf(service);
  const failing = service.rps > 0 && service.errors_per_second / service.rps > 0.01;
  return tone === "bad" || tone === "warn" || failing || service.replicas.some((r) => toneOfReplica(r) === "bad");
}

const GOOD = new Set(["ready", "completed"]);
const BUSY = new Set(["pending", "starting", "probing"]);
const IDLE = new Set(["paused", "draining", "stopping", "gone"]);

export function toneOfReplica(replica: Replica): Tone {
  if (replica.ejected) return "warn";
  if (GOOD.has(replica.phase)) return "good";
  if (BUSY.has(replica.phase)) return "busy";
  if (IDLE.has(replica.phase)) return "idle";
  return "bad";
}

export function Badge({ tone, text }: { tone: Tone; text: string }) {
  return (
    <span class={`badge ${tone}`}>
      <span class={`dot ${tone}`} aria-hidden="true" />
      {text}
    </span>
  );
}

const SHOWN = 20;

/** One mark for each replica, and the count in words. */
export function ReplicaDots({ service }: { service: Service }) {
  const more = service.replicas.length - SHOWN;
  return (
    <span class="dots">
      <span class="count">
        {service.ready}
        <span class="muted">/{service.wanted}</span>
      </span>
      <span class="marks" aria-hidden="true">
        {service.replicas.slice(0, SHOWN).map((replica) => (
          <i key={replica.name} class={`mark ${toneOfReplica(replica)}`} title={`${replica.name}: ${replica.phase}`} />
        ))}
        {more > 0 && <span class="more">+{more}</span>}
      </span>
    </span>
  );
}

export type EventTone = Tone | "plain";

export function toneOfEvent(kind: string): EventTone {
  if (/failed|died|crash|refused|lost|unhealthy|rolled-back|expiring|ejected|hook-failed/.test(kind)) return "bad";
  if (/short|unready|off$|gap|waiting|skipped|paused/.test(kind)) return "warn";
  if (/^scale\.|^rollout\.|^deploy|restart/.test(kind)) return "busy";
  if (/ready|done|issued|renewed|back$|on$/.test(kind)) return "good";
  return "plain";
}
