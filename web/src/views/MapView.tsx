// Who calls whom: services in columns from the outside inwards, with rates on the edges.

import { useMemo, useState } from "preact/hooks";
import { rate, seconds, success } from "../format";
import { keyOf, useLive } from "../live";
import { LongBody } from "../parts/LongBody";
import { toneOf } from "../parts/status";
import { Table, number } from "../parts/Table";
import { serviceLink } from "../router";
import type { Call, Service } from "../types";
import { HEIGHT, layOut, OUTSIDE, WIDTH, type Line, type Place } from "./layout";

const COLUMNS = ["Caller", "Service", number("Requests/s"), number("Success"), number("p95")];
/** Edges up to which requests are seen to flow: more would keep a browser busy all the time. */
const MAX_FLOWS = 40;

export function MapView() {
  const mesh = useLive();
  const projects = [...new Set(mesh.sorted.map((each) => each.project))];
  const [project, setProject] = useState("");
  const services = mesh.sorted.filter((each) => !project || each.project === project);
  const names = new Set(services.map(keyOf));
  const calls = mesh.calls.filter((each) => names.has(each.service) && (each.caller === OUTSIDE || names.has(each.caller)));
  const shape = calls.map((each) => `${each.caller}>${each.service}`).join() + [...names].join();
  const { places, lines, width, height } = useMemo(() => layOut([...names], calls), [shape]);
  const current = new Map(calls.map((each) => [`${each.caller}>${each.service}`, each]));
  const several = new Set(services.map((each) => each.project)).size > 1;
  const most = Math.max(1, ...calls.map((each) => each.rps));
  return (
    <>
      <div class="section-head">
        <h1>Map</h1>
        {projects.length > 1 && (
          <select aria-label="Project" value={project} onChange={(event) => setProject(event.currentTarget.value)}>
            <option value="">all projects</option>
            {projects.map((each) => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
        )}
      </div>
      <div class="panel scroll map" role="region" aria-label="Map of calls" tabIndex={0}>
        <svg viewBox={`0 0 ${width} ${height}`} width={width} height={height} role="group" aria-label="Services and the calls between them">
          <g aria-hidden="true">
            {lines.map((line) => {
              const id = `${line.call.caller}>${line.call.service}`;
              const call = current.get(id);
              return call && <Edge key={id} call={call} line={line} share={call.rps / most} flows={lines.length <= MAX_FLOWS} />;
            })}
          </g>
          {places.map((place) =>
            place.key === OUTSIDE ? (
              <g key="outside" transform={`translate(${place.x} ${place.y})`} class="node outside">
                <rect width={WIDTH} height={HEIGHT} rx="10" />
                <text x={WIDTH / 2} y={HEIGHT / 2 + 5} text-anchor="middle">
                  Outside
                </text>
              </g>
            ) : (
              <Node key={place.key} place={place} service={mesh.services.get(place.key)} several={several} />
            ),
          )}
        </svg>
      </div>
      <section>
        <h2 id="calls">Calls</h2>
        <Table
          labelledBy="calls"
          columns={COLUMNS}
          empty={!calls.length && <p class="empty">No calls in the last seconds.</p>}
          rows={calls.length}
        >
          <LongBody
            items={[...calls].sort((a, b) => b.rps - a.rps)}
            columns={COLUMNS.length}
            row={(call, index) => (
              <tr key={`${call.caller}>${call.service}`} aria-rowindex={index}>
                <th scope="row">{call.caller ? <a href={serviceLink(call.caller)}>{short(call.caller, several)}</a> : "outside"}</th>
                <td>
                  <a href={serviceLink(call.service)}>{short(call.service, several)}</a>
                </td>
                <td class="number">{rate(call.rps)}</td>
                <td class="number">{call.errors === null ? "–" : success(call.rps, call.errors)}</td>
                <td class="number">{seconds(call.p95)}</td>
              </tr>
            )}
          />
        </Table>
      </section>
    </>
  );
}

function short(key: string, several: boolean): string {
  return several ? key : key.slice(key.indexOf("/") + 1);
}

function Node({ place, service, several }: { place: Place; service: Service | undefined; several: boolean }) {
  if (!service) return null;
  const tone = toneOf(service);
  const name = short(place.key, several);
  return (
    <a href={serviceLink(place.key)}>
      <g transform={`translate(${place.x} ${place.y})`} class={`node ${tone}`}>
        <rect width={WIDTH} height={HEIGHT} rx="10" />
        <circle cx="16" cy="21" r="4" />
        <text x="28" y="25" class="name">
          {`${name.length > 18 ? `${name.slice(0, 17)}…` : name} `}
        </text>
        <text x="28" y="44" class="detail">
          {`${rate(service.rps)}/s · ${service.ready}/${service.wanted} ${tone === "good" ? "ready" : service.state}`}
        </text>
      </g>
    </a>
  );
}

function Edge({ call, line, share, flows }: { call: Call; line: Line; share: number; flows: boolean }) {
  const failing = call.errors !== null && call.rps > 0 && call.errors / call.rps > 0.01;
  const width = 1.25 + 3 * Math.sqrt(share);
  const details = [call.errors === null ? "" : success(call.rps, call.errors), call.p95 === null ? "" : seconds(call.p95)].filter(Boolean);
  return (
    <g class={failing ? "edge failing" : "edge"}>
      <path d={line.path} stroke-width={width} />
      {flows && <path d={line.path} stroke-width={width} class="flow" />}
      <text x={line.labelX} y={line.labelY + 4} text-anchor="middle">
        <tspan class="rate">{rate(call.rps)}/s</tspan>
        {details.length > 0 && <tspan class="detail">{` · ${details.join(" · ")}`}</tspan>}
      </text>
    </g>
  );
}
