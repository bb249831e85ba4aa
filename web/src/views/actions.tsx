// What an operator can change, each with what will happen before it is done.

import { useState } from "preact/hooks";
import { date, plural } from "../format";
import { keyOf } from "../live";
import { Confirm } from "../parts/dialogs";
import { useLoaded } from "../parts/load";
import { send } from "../session";
import type { Release, Replica, Service } from "../types";

export type ActionName = "scale" | "restart" | "undo" | "pause" | "resume";

export interface Chosen {
  name: ActionName | "drain";
  service: Service;
  replica?: Replica;
}

export function pathOf(service: Service): string {
  return `/v1/projects/${encodeURIComponent(service.project)}/services/${encodeURIComponent(service.name)}`;
}

/** Return the actions that make sense for a service now. */
export function actionsFor(service: Service): ActionName[] {
  const rolling = service.coming !== "" || service.state === "rolling" || service.stage !== "";
  const names: ActionName[] = ["scale"];
  if (!rolling) names.push("restart");
  names.push("undo");
  if (rolling) names.push(service.state === "paused" || service.stage.includes("paused") ? "resume" : "pause");
  return names;
}

export const LABELS: Record<ActionName | "drain", string> = {
  scale: "Scale",
  restart: "Restart",
  undo: "Roll back",
  pause: "Pause rollout",
  resume: "Resume rollout",
  drain: "Drain",
};

export function ActionDialog({ chosen, onClose }: { chosen: Chosen; onClose: () => void }) {
  const { name, service, replica } = chosen;
  switch (name) {
    case "scale":
      return <ScaleDialog service={service} onClose={onClose} />;
    case "undo":
      return <UndoDialog service={service} onClose={onClose} />;
    case "restart":
      return (
        <Confirm
          title={`Restart ${service.name}?`}
          action="Restart"
          onClose={onClose}
          run={async () => {
            const order = (await send<{ replicas: string[]; order: string }>("POST", `${pathOf(service)}/restart`))!;
            return `${service.name}: ${plural(order.replicas.length, "replica")} being replaced, ${order.order}`;
          }}
        >
          <Preview
            lines={[
              `${plural(service.running, "replica")} of revision ${service.revision.slice(0, 12)} are replaced one after the other by new ones of the same revision.`,
              "Each finishes its requests before it stops.",
            ]}
          />
          <ul class="names">
            {service.replicas.map((each) => (
              <li key={each.name}>
                {each.name} <span class="muted">{each.phase}</span>
              </li>
            ))}
          </ul>
        </Confirm>
      );
    case "pause":
    case "resume":
      return (
        <Confirm
          title={`${LABELS[name]} of ${service.name}?`}
          action={LABELS[name]}
          onClose={onClose}
          run={async () => {
            await send("POST", `${pathOf(service)}/${name}`);
            return `${service.name}: rollout ${name === "pause" ? "paused" : "resumed"}`;
          }}
        >
          <Preview
            lines={
              name === "pause"
                ? [`The rollout stays in its stage${service.stage ? ` (${service.stage})` : ""} until it is resumed. Both revisions keep serving.`]
                : ["The rollout continues in the stage where it was paused."]
            }
          />
        </Confirm>
      );
    case "drain":
      return (
        <Confirm
          title={`Drain ${replica!.name}?`}
          action="Drain"
          onClose={onClose}
          run={async () => {
            await send("POST", `/v1/replicas/${encodeURIComponent(replica!.name)}/drain`);
            return `${replica!.name} gets no new requests and is being replaced`;
          }}
        >
          <Preview
            lines={[
              "It gets no new requests, finishes those in flight, then stops. Another replica takes its place.",
              `${plural(replica!.in_flight, "request")} in flight; ${service.ready - 1} of ${service.wanted} replicas of ${service.name} stay ready meanwhile.`,
            ]}
          />
        </Confirm>
      );
  }
}

function Preview({ lines }: { lines: string[] }) {
  return (
    <div class="preview">
      {lines.map((line) => (
        <p key={line}>{line}</p>
      ))}
    </div>
  );
}

const TIMES: [string, number][] = [
  ["15 minutes", 900],
  ["1 hour", 3600],
  ["8 hours", 28_800],
  ["until it is removed", 0],
];

function ScaleDialog({ service, onClose }: { service: Service; onClose: () => void }) {
  const [count, setCount] = useState(service.wanted);
  const [time, setTime] = useState(3600);
  const [automatic, setAutomatic] = useState(false);
  const change = count - service.wanted;
  const lines = automatic
    ? [`The autoscaler decides again, from ${service.minimum} to ${service.maximum} replicas.`]
    : [
        change === 0
          ? `${service.name} stays at ${plural(count, "replica")}.`
          : change > 0
            ? `${plural(change, "replica")} start${change === 1 ? "s" : ""}: ${service.wanted} → ${count}.`
            : `${plural(-change, "replica")} finish${change === -1 ? "es" : ""} its requests and stop${change === -1 ? "s" : ""}: ${service.wanted} → ${count}.`,
        count === 0 ? "Requests wait for a first replica, or fail." : `${time ? `For ${TIMES.find(([, value]) => value === time)![0]}` : "Until the override is removed"} the autoscaler (${service.minimum} to ${service.maximum}) does not change the number.`,
      ];
  return (
    <Confirm
      title={`Scale ${service.name}`}
      action={automatic ? "Remove the override" : `Scale to ${count}`}
      danger={!automatic && count === 0}
      onClose={onClose}
      run={async () => {
        const body = automatic ? { replicas: null } : { replicas: count, seconds: time };
        const result = await send<{ shortage: string }>("PUT", `${pathOf(service)}/scale`, body);
        if (result?.shortage) return `${service.name}: set to ${count}, but ${result.shortage}`;
        return automatic ? `${service.name}: the autoscaler decides again` : `${service.name}: set to ${plural(count, "replica")}`;
      }}
    >
      <div class="fields">
        <label>
          Replicas
          <span class="stepper">
            <button type="button" aria-label="One less" disabled={automatic || count === 0} onClick={() => setCount(count - 1)}>
              −
            </button>
            <input
              type="number"
              min="0"
              max="1000"
              value={count}
              disabled={automatic}
              onInput={(event) => setCount(Math.max(0, Math.floor(event.currentTarget.valueAsNumber || 0)))}
            />
            <button type="button" aria-label="One more" disabled={automatic} onClick={() => setCount(count + 1)}>
              +
            </button>
          </span>
        </label>
        <label>
          For
          <select value={String(time)} disabled={automatic} onChange={(event) => setTime(Number(event.currentTarget.value))}>
            {TIMES.map(([text, value]) => (
              <option key={value} value={String(value)}>
                {text}
              </option>
            ))}
          </select>
        </label>
      </div>
      {service.override !== null && (
        <label class="check">
          <input type="checkbox" checked={automatic} onChange={(event) => setAutomatic(event.currentTarget.checked)} /> Remove the number that was set by
          hand ({service.override})
        </label>
      )}
      <Preview lines={lines} />
    </Confirm>
  );
}

function UndoDialog({ service, onClose }: { service: Service; onClose: () => void }) {
  const { value: releases, error } = useLoaded<Release[]>(`${pathOf(service)}/releases?limit=20`, 60_000);
  const others = (releases ?? []).filter((each) => each.revision !== service.revision);
  const [to, setTo] = useState(0);
  const target = others.find((each) => each.number === to) ?? others[0];
  return (
    <Confirm
      title={`Roll back ${service.name}?`}
      action={target ? `Go back to release ${target.number}` : "Roll back"}
      danger
      disabled={!target}
      onClose={onClose}
      run={async () => {
        const release = (await send<Release>("POST", `${pathOf(service)}/undo?to=${target!.number}`))!;
        return `${service.name}: release ${release.number} goes back to ${target!.revision.slice(0, 12)}`;
      }}
    >
      {error && <p class="error">{error}</p>}
      {releases !== null && others.length === 0 && <p>There is no earlier release of {keyOf(service)} with another revision.</p>}
      {others.length > 0 && (
        <>
          <label>
            Release
            <select value={String(target?.number ?? 0)} onChange={(event) => setTo(Number(event.currentTarget.value))}>
              {others.map((each) => (
                <option key={each.number} value={String(each.number)}>
                  {each.number} · {each.revision.slice(0, 12)} · {date(each.at)} · {each.outcome}
                </option>
              ))}
            </select>
          </label>
          <Preview
            lines={[
              `A rollout from ${service.revision.slice(0, 12)} to ${target!.revision.slice(0, 12)} begins, in the stages of the service. It stops by itself if the requests get worse.`,
              `Release ${target!.number} by ${target!.who}: ${target!.changed || "first release"}`,
            ]}
          />
        </>
      )}
    </Confirm>
  );
}
