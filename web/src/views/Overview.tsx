// The first view: is everything well, and if not, where.

import { memo } from "preact/compat";
import { useMemo, useState } from "preact/hooks";
import { rate, seconds, success } from "../format";
import { keyOf, useLive, type Live, type Spark as SparkData } from "../live";
import { LongBody } from "../parts/LongBody";
import { Badge, needsAttention, ReplicaDots, toneOf } from "../parts/status";
import { Spark } from "../parts/Spark";
import { serviceLink } from "../router";
import type { Service } from "../types";

type Order = "name" | "rps" | "p95" | "errors";

const COLUMNS = 7;
const ORDERS: Record<Order, (a: Service, b: Service) => number> = {
  name: (a, b) => keyOf(a).localeCompare(keyOf(b)),
  rps: (a, b) => b.rps - a.rps,
  p95: (a, b) => (b.p95 ?? 0) - (a.p95 ?? 0),
  errors: (a, b) => b.errors_per_second - a.errors_per_second,
};

export function Overview() {
  const mesh = useLive();
  const [filter, setFilter] = useState("");
  const [order, setOrder] = useState<Order>("name");
  const several = new Set(mesh.sorted.map((each) => each.project)).size > 1;
  const shown = useMemo(
    () => mesh.sorted.filter((each) => keyOf(each).includes(filter.trim().toLowerCase())).sort(ORDERS[order]),
    [mesh.sorted, filter, order],
  );
  const troubled = mesh.sorted.filter(needsAttention);
  // The width of the first column does not depend on which rows are in the document.
  const longest = useMemo(() => Math.max(0, ...shown.map((each) => (several ? keyOf(each) : each.name).length)), [shown, several]);
  return (
    <>
      <h1 class="hidden">Overview</h1>
      <Summary mesh={mesh} troubled={troubled.length} />
      {troubled.length > 0 && (
        <section aria-labelledby="attention">
          <h2 id="attention">Needs attention</h2>
          <ul class="attention">
            {troubled.slice(0, 8).map((service) => (
              <li key={keyOf(service)}>
                <a href={serviceLink(keyOf(service))}>
                  <Badge tone={toneOf(service) === "good" ? "warn" : toneOf(service)} text={toneOf(service) === "good" ? "errors" : service.state} />
                  <strong>{several ? keyOf(service) : service.name}</strong>
                  <span class="muted cut">{reasonOf(service)}</span>
                </a>
              </li>
            ))}
          </ul>
        </section>
      )}
      <section>
        <div class="section-head">
          <h2 id="services">Services</h2>
          <input
            type="search"
            class="filter"
            placeholder="Filter"
            aria-label="Filter services"
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
        </div>
        <div class="panel scroll" role="region" aria-labelledby="services" tabIndex={0}>
          <table class="services" aria-rowcount={shown.length + 1} style={{ "--longest": `${longest}ch` }}>
            <thead>
              <tr aria-rowindex={1}>
                <Head name="Service" id="name" order={order} set={setOrder} />
                <th scope="col">State</th>
                <th scope="col">Replicas</th>
                <Head name="Requests/s" id="rps" order={order} set={setOrder} numeric />
                <Head name="p95" id="p95" order={order} set={setOrder} numeric />
                <Head name="Success" id="errors" order={order} set={setOrder} numeric />
                <th scope="col" class="wide-only">
                  Last event
                </th>
              </tr>
            </thead>
            <LongBody
              items={shown}
              columns={COLUMNS}
              row={(service, index) => <Row key={keyOf(service)} index={index} service={service} spark={mesh.sparks.get(keyOf(service))} several={several} />}
            />
          </table>
          {shown.length === 0 && (
            <p class="empty">
              {mesh.sorted.length ? (
                "No service matches the filter."
              ) : (
                <>
                  No service is deployed. Deploy one with <code>meshd up -f compose.yml</code>.
                </>
              )}
            </p>
          )}
        </div>
      </section>
    </>
  );
}

function reasonOf(service: Service): string {
  const bad = service.replicas.find((each) => each.reason && each.phase !== "ready");
  return service.waiting || (bad ? `${bad.name}: ${bad.reason}` : service.last);
}

interface HeadProps {
  name: string;
  id: Order;
  order: Order;
  set: (order: Order) => void;
  numeric?: boolean;
}

function Head({ name, id, order, set, numeric }: HeadProps) {
  return (
    <th scope="col" class={numeric ? "number" : undefined} aria-sort={order === id ? (id === "name" ? "ascending" : "descending") : undefined}>
      <button type="button" class="sort" onClick={() => set(id)}>
        {name}
        {order === id && <span aria-hidden="true">{id === "name" ? " ↑" : " ↓"}</span>}
      </button>
    </th>
  );
}

interface RowProps {
  index: number;
  service: Service;
  spark: SparkData | undefined;
  several: boolean;
}

const Row = memo(function Row({ index, service, spark, several }: RowProps) {
  const errors = service.errors_per_second;
  const failing = service.rps > 0 && errors / service.rps > 0.01;
  return (
    <tr aria-rowindex={index}>
      <th scope="row">
        <a href={serviceLink(keyOf(service))}>
          {several && <span class="muted">{service.project}/</span>}
          {service.name}
        </a>
      </th>
      <td>
        <Badge tone={toneOf(service)} text={service.stage && service.state === "rolling" ? `rolling · ${service.stage}` : service.state} />
      </td>
      <td>
        <ReplicaDots service={service} />
      </td>
      <td class="number">
        <span class="with-spark">
          <Spark values={spark?.rps ?? []} />
          <span class="figure">{rate(service.rps)}</span>
        </span>
      </td>
      <td class="number">
        <span class="with-spark">
          <Spark values={spark?.p95 ?? []} tone="slow" width={72} />
          <span class="figure wide">{seconds(service.p95)}</span>
        </span>
      </td>
      <td class={failing ? "number bad-text" : "number"}>{success(service.rps, errors)}</td>
      <td class="wide-only muted">
        <span class="cut">{service.last}</span>
      </td>
    </tr>
  );
});

function Summary({ mesh, troubled }: { mesh: Live; troubled: number }) {
  const services = mesh.sorted;
  const sum = (value: (service: Service) => number) => services.reduce((total, each) => total + value(each), 0);
  const rps = sum((each) => each.rps);
  const errors = sum((each) => each.errors_per_second);
  const ready = sum((each) => each.ready);
  const wanted = sum((each) => each.wanted);
  const slowest = services.reduce<Service | null>((most, each) => ((each.p95 ?? 0) > (most?.p95 ?? 0) ? each : most), null);
  const total = useMemo(() => addUp([...mesh.sparks.values()]), [mesh.sparks.size, [...mesh.sparks.values()][0]?.last]);
  const well = services.length - troubled;
  return (
    <section class="tiles" aria-label="Summary">
      <div class="tile">
        <h2 class="label">Services</h2>
        <p class="big">
          {well}
          <span class="muted">/{services.length} well</span>
        </p>
        <p class={troubled ? "note bad-text" : "note good-text"}>{troubled ? `${troubled} need attention` : "All is well"}</p>
      </div>
      <div class="tile">
        <h2 class="label">Requests/s</h2>
        <p class="big">{rate(rps)}</p>
        <Spark values={total} width={160} height={26} />
      </div>
      <div class="tile">
        <h2 class="label">Success</h2>
        <p class="big">{success(rps, errors)}</p>
        <p class="note muted">{errors >= 0.05 ? `${rate(errors)} errors/s` : "no errors now"}</p>
      </div>
      <div class="tile">
        <h2 class="label">Slowest p95</h2>
        <p class="big">{seconds(slowest?.p95 ?? null)}</p>
        <p class="note muted cut">{slowest ? slowest.name : "no requests"}</p>
      </div>
      <div class="tile">
        <h2 class="label">Replicas ready</h2>
        <p class="big">
          {ready}
          <span class="muted">/{wanted}</span>
        </p>
        <p class="note muted">{sum((each) => each.in_flight).toFixed(0)} requests in flight</p>
      </div>
    </section>
  );
}

function addUp(sparks: SparkData[]): (number | null)[] {
  const length = Math.max(0, ...sparks.map((each) => each.rps.length));
  return Array.from({ length }, (_, index) => {
    const values = sparks.map((each) => each.rps[each.rps.length - length + index] ?? null).filter((value) => value !== null);
    return values.length ? values.reduce((total, value) => total + value, 0) : null;
  });
}
