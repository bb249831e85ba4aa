// Records of the flight recorder: the last requests of a moment, how their time splits, and why the
// proxy chose the endpoint.

import { useMemo, useState } from "preact/hooks";
import { bytes, date, plural, seconds, time } from "../format";
import { keyOf, live, useLive } from "../live";
import { Confirm } from "../parts/dialogs";
import { Icon } from "../parts/icons";
import { useLoaded } from "../parts/load";
import { Badge } from "../parts/status";
import { Table, number } from "../parts/Table";
import { TraceId } from "../parts/TraceId";
import { recordLink, serviceLink } from "../router";
import { send } from "../session";
import type { Flight, RecordedRequest, RecordInfo } from "../types";
import { pathOf } from "./actions";

/** Requests that are fetched; more than two workers remember. */
const LIMIT = 10_000;
/** Rows that are shown at first, and with each press of the button. */
const ROWS = 100;
const LIST_MS = 3000;
/** A record does not change once the workers have written it. */
const WRITTEN_MS = 600_000;

interface ListProps {
  canOperate: boolean;
  /** Only records with requests of this service. Default: all. */
  service?: string;
}

/** All records, or those with requests of a service, and the button that saves one more. */
export function RecordList({ canOperate, service }: ListProps) {
  const { value, error, reload } = useLoaded<RecordInfo[]>("/v1/records", LIST_MS);
  const [saving, setSaving] = useState(false);
  const records = value?.filter((each) => !service || !each.service || each.service === service);
  return (
    <>
      <div class="section-head">
        <p class="muted">The last requests that the proxy remembers, saved when a service misses its latency objective, or by hand.</p>
        {canOperate && (
          <button type="button" onClick={() => setSaving(true)}>
            <Icon name="record" />
            Save a record
          </button>
        )}
      </div>
      {error && <p class="error">{error}</p>}
      {records && !records.length && <p class="panel empty">There is no record yet.</p>}
      {records && records.length > 0 && (
        <Table label="Records" columns={["Saved at", "Service", "Why", number("Size")]}>
          {records.map((each) => (
            <tr key={each.id}>
              <th scope="row">
                <a href={recordLink(each.id)}>{date(each.at)}</a>
              </th>
              <td>{each.service || "all"}</td>
              <td class="text">{each.reason}</td>
              <td class="number">{each.workers ? bytes(each.bytes) : "empty"}</td>
            </tr>
          ))}
        </Table>
      )}
      {saving && <SaveDialog service={service ?? ""} onSaved={reload} onClose={() => setSaving(false)} />}
    </>
  );
}

function SaveDialog({ service, onSaved, onClose }: { service: string; onSaved: () => void; onClose: () => void }) {
  const [key, setKey] = useState(service);
  const services = live.sorted;
  return (
    <Confirm
      title="Save a record"
      action="Save"
      onClose={onClose}
      run={async () => {
        const chosen = live.services.get(key);
        const made = (await send<RecordInfo>("POST", chosen ? `${pathOf(chosen)}/records` : "/v1/records"))!;
        onSaved();
        return `Record ${made.id} is being saved`;
      }}
    >
      <label>
        Requests of
        <select value={key} onChange={(event) => setKey(event.currentTarget.value)}>
          <option value="">all services</option>
          {services.map((each) => (
            <option key={keyOf(each)} value={keyOf(each)}>
              {keyOf(each)}
            </option>
          ))}
        </select>
      </label>
      <div class="preview">
        <p>Each proxy worker writes the requests that it remembers to the state directory: all of them while there are few, the slowest and the failed ones of many. No request waits for it.</p>
      </div>
    </Confirm>
  );
}

export function RecordsView({ canOperate }: { canOperate: boolean }) {
  return (
    <>
      <h1>Records</h1>
      <RecordList canOperate={canOperate} />
    </>
  );
}

type Order = "slowest" | "newest";
const ORDERS: Record<Order, (a: Flight, b: Flight) => number> = {
  slowest: (a, b) => total(b) - total(a),
  newest: (a, b) => b.request.time - a.request.time,
};

function total(flight: Flight): number {
  return flight.request.total ?? 0;
}

export function RecordView({ id }: { id: string }) {
  useLive();
  const [empty, setEmpty] = useState(true);
  const path = `/v1/records/${encodeURIComponent(id)}?limit=${LIMIT}`;
  const { value, error } = useLoaded<Flight[]>(path, empty ? LIST_MS : WRITTEN_MS);
  if (value !== null && empty && value.length) setEmpty(false);
  const { value: records } = useLoaded<RecordInfo[]>("/v1/records", WRITTEN_MS);
  const record = records?.find((each) => each.id === id);
  return (
    <>
      <p class="crumbs">
        <a href="#/records">Records</a> <span aria-hidden="true">/</span> {record?.service || (record ? "all services" : "")}
      </p>
      <h1>{record ? `Record of ${date(record.at)}` : "Record"}</h1>
      {record && <p class="reached">{record.reason}</p>}
      {error && <p class="error">{error}</p>}
      {value !== null && !value.length && <p class="panel empty">The proxy workers remembered no such requests, or are still writing them.</p>}
      {value !== null && value.length > 0 && <Requests flights={value} />}
    </>
  );
}

function Requests({ flights }: { flights: Flight[] }) {
  const [order, setOrder] = useState<Order>("slowest");
  const [status, setStatus] = useState("");
  const [text, setText] = useState("");
  const [rows, setRows] = useState(ROWS);
  const shown = useMemo(() => {
    const words = text.trim().toLowerCase();
    return flights
      .filter(({ request }) => !status || String(request.status)[0] === status)
      .filter((each) => !words || searchable(each).includes(words))
      .sort(ORDERS[order]);
  }, [flights, order, status, text]);
  const longest = useMemo(() => Math.max(...flights.map(total), 1e-6), [flights]);
  return (
    <>
      <div class="toolbar">
        <input type="search" placeholder="Path, service, endpoint or trace" aria-label="Search the requests" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <label class="check">
          Status
          <select value={status} onChange={(event) => setStatus(event.currentTarget.value)}>
            <option value="">all</option>
            {["2", "3", "4", "5"].map((each) => (
              <option key={each} value={each}>
                {each}xx
              </option>
            ))}
          </select>
        </label>
        <div class="switch" role="group" aria-label="Order">
          {(["slowest", "newest"] as const).map((each) => (
            <button key={each} type="button" aria-pressed={order === each} onClick={() => setOrder(each)}>
              {each === "slowest" ? "Slowest" : "Newest"}
            </button>
          ))}
        </div>
        <span class="muted" role="status">
          {plural(shown.length, "request")}
        </span>
      </div>
      <Legend />
      <Table
        label="Requests"
        columns={["Request", number("Took"), "Status", "Parts", "Endpoint, and why"]}
        empty={!shown.length && <p class="empty">No request matches.</p>}
      >
        {shown.slice(0, rows).map((flight, index) => (
          <Row key={`${flight.request.time} ${flight.request.request_id ?? index}`} flight={flight} longest={longest} />
        ))}
      </Table>
      {shown.length > rows && (
        <p>
          <button type="button" onClick={() => setRows(rows + ROWS)}>
            Show {Math.min(ROWS, shown.length - rows)} more of {shown.length}
          </button>
        </p>
      )}
    </>
  );
}

function searchable({ request }: Flight): string {
  return `${request.method} ${request.host ?? ""}${request.target} ${request.service ?? ""} ${request.endpoint ?? ""} ${request.trace_id ?? ""} ${request.failure ?? ""}`.toLowerCase();
}

const PARTS = ["queue", "connect", "first byte", "body"] as const;
const MEANINGS: Record<(typeof PARTS)[number], string> = {
  queue: "waited in the proxy",
  connect: "connected to the endpoint",
  "first byte": "waited for the endpoint",
  body: "received the body",
};

function partsOf(request: RecordedRequest): [(typeof PARTS)[number], number][] {
  const connect = request.connect ?? 0;
  return [
    ["queue", request.queue ?? 0],
    ["connect", connect],
    ["first byte", Math.max(0, (request.first_byte ?? 0) - connect)],
    ["body", request.body ?? 0],
  ];
}

function Legend() {
  return (
    <p class="legend muted">
      {PARTS.map((name) => (
        <span key={name}>
          <i class={`part ${name.replace(" ", "-")}`} aria-hidden="true" /> {name}: {MEANINGS[name]}
        </span>
      ))}
    </p>
  );
}

function Row({ flight, longest }: { flight: Flight; longest: number }) {
  const { request } = flight;
  const project = (request.service ?? "").split("/")[0]!;
  const parts = partsOf(request).filter(([, length]) => length >= 1e-5);
  const words = parts.map(([name, length]) => `${name} ${seconds(length)}`).join(", ") || "at once";
  const tone = request.status >= 500 ? "bad" : request.status >= 400 ? "warn" : "good";
  return (
    <tr>
      <th scope="row" class="text">
        <span class="mono">
          {request.method} {request.target}
        </span>
        <span class="reason">
          {time(request.time)} · {request.host || "no host"}
          {request.service && (
            <>
              {" · "}
              <a href={serviceLink(request.service)}>{request.service}</a>
            </>
          )}
          {flight.caller && ` · called by ${flight.caller}`}
        </span>
        {request.trace_id && (
          <span class="reason">
            <TraceId id={request.trace_id} project={project} />
          </span>
        )}
      </th>
      <td class="number">{seconds(total(flight))}</td>
      <td>
        <Badge tone={tone} text={String(request.status)} />
        {request.failure && (
          <span class="reason">
            {request.failure}
            {request.detail && `: ${request.detail}`}
          </span>
        )}
      </td>
      <td>
        <svg class="parts" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label={words}>
          {bars(parts, longest)}
        </svg>
        <span class="reason">{words}</span>
      </td>
      <td class="text">
        <span class="mono">{request.endpoint || "–"}</span>
        <span class="reason">{describeChoice(flight)}</span>
      </td>
    </tr>
  );
}

function bars(parts: [string, number][], longest: number) {
  let x = 0;
  return parts.map(([name, length]) => {
    const width = (length / longest) * 1000;
    const from = x;
    x += width;
    return <rect key={name} class={`part ${name.replace(" ", "-")}`} x={from} y="0" width={width} height="10" />;
  });
}

/** Return why the endpoint was chosen, in the words of `meshd record show`. */
function describeChoice(flight: Flight): string {
  const load = flight.load ? `${flight.load} in flight there` : "idle";
  const candidates = flight.candidates ?? 0;
  const texts: Record<string, string> = {
    only: `only endpoint, ${load}`,
    sticky: `sticky cookie, of ${candidates}, ${load}`,
    "least-loaded": `fewest requests of ${candidates}, others saturated, ${load}`,
    hedge: `second attempt was faster, ${load}`,
    balanced: `${flight.algorithm || "balanced"} of ${candidates}, ${load}`,
  };
  const tried = flight.tried?.length ? `, after ${flight.tried.join(", ")} failed` : "";
  const retries = flight.request.retries ? `; ${flight.request.retries === 1 ? "1 retry" : `${flight.request.retries} retries`}` : "";
  return (texts[flight.choice ?? ""] ?? "no endpoint answered") + tried + retries;
}
