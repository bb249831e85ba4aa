// One service: its load, latency, size, decisions and events on one time axis, and its replicas.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ago, bytes, date, percent, rate, seconds, success, time } from "../format";
import { keyOf, useLive } from "../live";
import { Chart, EventRow, HeatMap } from "../parts/charts";
import { Icon, type IconName } from "../parts/icons";
import { useLoaded } from "../parts/load";
import { Badge, toneOf, toneOfEvent, toneOfReplica } from "../parts/status";
import { Table, number } from "../parts/Table";
import { serviceLink } from "../router";
import type { Decision, Event, HistoryPoint, LatencyMap, Release, Service } from "../types";
import { actionsFor, LABELS, pathOf, type ActionName, type Chosen } from "./actions";
import { Logs } from "./Logs";
import { RecordList } from "./Records";

const RANGES: [string, number][] = [
  ["10 min", 600],
  ["1 h", 3600],
  ["24 h", 86_400],
];
const YOUNG_SECONDS = 60;
const ICONS: Record<ActionName, IconName> = { scale: "scale", restart: "restart", undo: "undo", pause: "pause", resume: "play" };

interface Props {
  name: string;
  tab: string;
  canOperate: boolean;
  onAction: (chosen: Chosen) => void;
}

export function ServiceView({ name, tab, canOperate, onAction }: Props) {
  const mesh = useLive();
  const service = mesh.services.get(name);
  if (service === undefined) {
    return mesh.at ? (
      <>
        <h1>{name}</h1>
        <p class="empty">This service does not exist, or was removed.</p>
      </>
    ) : (
      <h1 class="muted">{name}</h1>
    );
  }
  const tabs: [string, string][] = [
    ["", "Overview"],
    ["replicas", `Replicas`],
    ["decisions", "Decisions"],
    ["releases", "Releases"],
    ["logs", "Logs"],
    ["records", "Records"],
  ];
  return (
    <>
      <div class="title-row">
        <div>
          <p class="crumbs">
            <a href="#/">Services</a> <span aria-hidden="true">/</span> {service.project}
          </p>
          <h1 tabIndex={-1}>
            {service.name} <Badge tone={toneOf(service)} text={service.state} />
          </h1>
        </div>
        {canOperate && (
          <div class="actions">
            {actionsFor(service).map((each) => (
              <button key={each} type="button" onClick={() => onAction({ name: each, service })}>
                <Icon name={ICONS[each]} />
                {LABELS[each]}
              </button>
            ))}
          </div>
        )}
      </div>
      <Facts service={service} now={mesh.at} />
      <nav class="tabs" aria-label="Parts of the service">
        {tabs.map(([id, text]) => (
          <a key={id} href={serviceLink(name, id)} aria-current={tab === id ? "page" : undefined}>
            {text}
            {id === "replicas" && <span class="chip">{service.replicas.length}</span>}
          </a>
        ))}
      </nav>
      {tab === "" && <Charts key={name} service={service} />}
      {tab === "replicas" && <Replicas service={service} now={mesh.at} canOperate={canOperate} onAction={onAction} />}
      {tab === "decisions" && <Decisions service={service} />}
      {tab === "releases" && <Releases service={service} />}
      {tab === "logs" && <Logs key={name} service={service} />}
      {tab === "records" && <RecordList key={name} service={name} canOperate={canOperate} />}
    </>
  );
}

function Facts({ service, now }: { service: Service; now: number }) {
  const until = service.override_until ? ` for ${ago(now, service.override_until)}` : "";
  const facts: [string, string][] = [
    ["Requests/s", rate(service.rps)],
    ["Success", success(service.rps, service.errors_per_second)],
    ["p50", seconds(service.p50)],
    ["p95", seconds(service.p95)],
    ["p99", seconds(service.p99)],
    ["In flight", service.in_flight.toFixed(0)],
    ["Replicas", `${service.ready}/${service.wanted}`],
    ["Scales", service.override === null ? `${service.minimum}–${service.maximum}` : `${service.override} by hand${until}`],
    ["Revision", service.revision.slice(0, 12)],
  ];
  if (service.coming) facts.push(["Rollout", `${service.coming.slice(0, 12)} ${service.stage}`]);
  if (service.parked) facts.push(["Waiting", `${service.parked}`]);
  return (
    <>
      <dl class="facts">
        {facts.map(([term, text]) => (
          <div key={term}>
            <dt>{term}</dt>
            <dd>{text}</dd>
          </div>
        ))}
      </dl>
      {service.reached.length > 0 && <p class="reached muted">Reached at {service.reached.join(" · ")}</p>}
      {service.trial && <p class="reached">{service.trial}</p>}
    </>
  );
}

interface Columns {
  at: number[];
  rps: number[];
  errors: number[];
  p50: (number | null)[];
  p95: (number | null)[];
  p99: (number | null)[];
  ready: number[];
  desired: number[];
}

function columnsOf(points: HistoryPoint[]): Columns {
  return {
    at: points.map((each) => each.at),
    rps: points.map((each) => each.rps),
    errors: points.map((each) => each.errors),
    p50: points.map((each) => each.p50),
    p95: points.map((each) => each.p95),
    p99: points.map((each) => each.p99),
    ready: points.map((each) => each.ready),
    desired: points.map((each) => each.desired),
  };
}

function Charts({ service }: { service: Service }) {
  const mesh = useLive();
  const [range, setRange] = useState(600);
  const [read, setRead] = useState<Event | null>(null);
  const key = keyOf(service);
  const now = Math.floor(mesh.at);
  const start = now - range;
  const step = range <= 600 ? 2000 : 15_000;
  // The start is rounded, so that the address changes once a minute only.
  const since = Math.floor(start / 60) * 60 - 1;
  const history = useLoaded<HistoryPoint[]>(`${pathOf(service)}/history?since=${range <= 600 ? start + 1 - (start % 2) : since}`, step);
  const kept = useRef<HistoryPoint[]>([]);
  if (history.value !== null) kept.current = history.value;
  const columns = useMemo(() => columnsOf(kept.current), [kept.current]);
  // A young service is shown from its first point on.
  const from = Math.max(start, Math.min(columns.at[0] ?? start, now - YOUNG_SECONDS));
  const heat = useLoaded<LatencyMap>(`${pathOf(service)}/latencies?since=${Math.floor(Math.max(start, now - 3600) / 60) * 60}`, 5000);
  const keptHeat = useRef<LatencyMap | null>(null);
  if (heat.value !== null) keptHeat.current = heat.value;
  const events = mesh.events.filter((each) => keyOf({ project: each.project, name: each.service }) === key);
  const marks = events
    .filter((each) => /^scale\.|^rollout\./.test(each.kind))
    .map((each) => ({ at: each.at, tone: toneOfEvent(each.kind) === "bad" ? "bad" : "mark" }));
  const shared = { at: columns.at, from, to: now, marks };
  return (
    <>
      <div class="section-head">
        <h2>Last {RANGES.find(([, value]) => value === range)![0]}</h2>
        <div class="switch" role="group" aria-label="Time shown">
          {RANGES.map(([text, value]) => (
            <button key={value} type="button" aria-pressed={value === range} onClick={() => setRange(value)}>
              {text}
            </button>
          ))}
        </div>
      </div>
      <div class="panel charts">
        <Chart
          title="Requests"
          {...shared}
          format={(value) => `${rate(value)}/s`}
          series={[
            { label: "all", values: columns.rps, color: "accent", fill: true },
            { label: "errors", values: columns.errors, color: "bad" },
          ]}
        />
        <Chart
          title="Latency"
          {...shared}
          format={seconds}
          least={0.01}
          series={[
            { label: "p99", values: columns.p99, color: "line3" },
            { label: "p95", values: columns.p95, color: "line2" },
            { label: "p50", values: columns.p50, color: "line1" },
          ]}
        />
        <HeatMap map={keptHeat.current} from={from} to={now} />
        <Chart
          title="Replicas"
          {...shared}
          whole
          height={100}
          format={(value) => `${Math.round(value)}`}
          series={[
            { label: "ready", values: columns.ready, color: "good", steps: true, fill: true },
            { label: "wanted", values: columns.desired, color: "mark", steps: true, dashed: true },
          ]}
          axis
        />
        <EventRow events={events} from={from} to={now} onChoose={setRead} />
      </div>
      <div class="columns">
        <section aria-labelledby="events-of-service">
          <h2 id="events-of-service">Events</h2>
          <EventList events={events} chosen={read} />
        </section>
        <section aria-labelledby="latest-decisions">
          <h2 id="latest-decisions">Scaling decisions</h2>
          <DecisionList service={service} limit={12} />
        </section>
      </div>
    </>
  );
}

export function EventList({ events, chosen, withService = false }: { events: Event[]; chosen?: Event | null; withService?: boolean }) {
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => {
    if (chosen) list.current?.querySelector(`[data-id="${chosen.id}"]`)?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  if (!events.length) return <p class="panel empty">No events yet.</p>;
  return (
    <ol class="panel list scroll-y" ref={list} tabIndex={0} aria-label="Events, newest first">
      {events
        .slice(-200)
        .reverse()
        .map((event) => (
          <li key={event.id} data-id={event.id} class={event === chosen ? "chosen" : undefined}>
            <span class={`dot ${toneOfEvent(event.kind)}`} aria-hidden="true" />
            <time>{time(event.at)}</time>
            <span class="kind">{event.kind}</span>
            <span class="text">
              {withService && event.service && <a href={serviceLink(`${event.project}/${event.service}`)}>{event.service}</a>}{" "}
              {event.replica && <span class="muted">{event.replica}</span>} {event.text}
            </span>
          </li>
        ))}
    </ol>
  );
}

function DecisionList({ service, limit }: { service: Service; limit: number }) {
  const { value, error } = useLoaded<Decision[]>(`${pathOf(service)}/decisions?limit=${limit}`, 5000, service.wanted);
  if (error) return <p class="panel empty">{error}</p>;
  if (value === null) return <p class="panel empty">Loading …</p>;
  if (!value.length) return <p class="panel empty">No decision yet.</p>;
  return (
    <ol class="panel list scroll-y" tabIndex={0} aria-label="Scaling decisions, newest first">
      {value.map((each) => (
        <li key={each.at}>
          <span class={`change ${each.desired > each.previous ? "up" : each.desired < each.previous ? "down" : ""}`}>
            {each.desired === each.previous ? `${each.desired}` : `${each.previous} → ${each.desired}`}
          </span>
          <time>{time(each.at)}</time>
          <span class="kind">{each.cause}</span>
          <span class="text">{each.reason}</span>
        </li>
      ))}
    </ol>
  );
}

function Replicas({ service, now, canOperate, onAction }: { service: Service; now: number; canOperate: boolean; onAction: (chosen: Chosen) => void }) {
  return (
    <Table
      label="Replicas"
      columns={["Replica", "State", number("For"), number("In flight"), number("CPU"), number("Memory"), number("Restarts"), "Revision", "Node", "Address", ...(canOperate ? [{ name: "Actions", hidden: true }] : [])]} empty={!service.replicas.length && <p class="empty">No replica runs.</p>}
    >
      {service.replicas.map((replica) => (
        <tr key={replica.name}>
          <th scope="row">
            {replica.name}
            {replica.reason && <span class="reason">{replica.reason}</span>}
          </th>
          <td>
            <Badge tone={toneOfReplica(replica)} text={replica.ejected ? "ejected" : replica.phase} />
          </td>
          <td class="number">{ago(replica.since, now)}</td>
          <td class="number">{replica.in_flight}</td>
          <td class="number">{replica.cpu === null ? "–" : percent(replica.cpu, 100)}</td>
          <td class="number">{bytes(replica.memory)}</td>
          <td class="number">{replica.restarts}</td>
          <td class="mono">{replica.revision.slice(0, 12)}</td>
          <td>{replica.node || "–"}</td>
          <td class="mono">{replica.address || "–"}</td>
          {canOperate && (
            <td>
              <button type="button" class="small" aria-label={`Drain ${replica.name}`} onClick={() => onAction({ name: "drain", service, replica })}>
                Drain
              </button>
            </td>
          )}
        </tr>
      ))}
    </Table>
  );
}

function Decisions({ service }: { service: Service }) {
  return (
    <section aria-labelledby="all-decisions">
      <h2 id="all-decisions">Scaling decisions with their reasons</h2>
      <DecisionList service={service} limit={200} />
    </section>
  );
}

function Releases({ service }: { service: Service }) {
  const { value } = useLoaded<Release[]>(`${pathOf(service)}/releases?limit=50`, 10_000, service.revision + service.state);
  if (value === null) return <p class="panel empty">Loading …</p>;
  if (!value.length) return <p class="panel empty">No release yet.</p>;
  return (
    <Table label="Releases" columns={["Release", "Outcome", "Revision", "When", "Who", "What changed"]}>
      {value.map((each) => (
        <tr key={each.number}>
          <th scope="row">
            {each.number} <span class="muted">{each.how}</span>
          </th>
          <td>
            <Badge tone={each.outcome === "done" ? "good" : each.outcome === "rolled-back" ? "bad" : "busy"} text={each.outcome} />
          </td>
          <td class="mono">{each.revision.slice(0, 12)}</td>
          <td>{date(each.at)}</td>
          <td>{each.who}</td>
          <td class="text">
            {each.changed}
            {each.cause && <span class="reason">{each.cause}</span>}
          </td>
        </tr>
      ))}
    </Table>
  );
}
