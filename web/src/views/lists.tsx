// Events, jobs, certificates and nodes.

import { useState } from "preact/hooks";
import { bytes, date, plural } from "../format";
import { useLive } from "../live";
import { useLoaded } from "../parts/load";
import { Badge, type Tone } from "../parts/status";
import { Table, number } from "../parts/Table";
import { serviceLink } from "../router";
import type { Certificate, Job, Node, Schedule } from "../types";
import { EventList } from "./ServiceView";

export function EventsView() {
  const mesh = useLive();
  const [filter, setFilter] = useState("");
  const text = filter.trim().toLowerCase();
  const shown = mesh.events.filter((each) => !text || `${each.kind} ${each.project}/${each.service} ${each.replica} ${each.text}`.toLowerCase().includes(text));
  return (
    <>
      <div class="section-head">
        <h1>Events</h1>
        <input type="search" class="filter" placeholder="Filter" aria-label="Filter events" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
      </div>
      <div class="tall">
        <EventList events={shown} withService />
      </div>
    </>
  );
}

const JOB_TONES: Record<string, Tone> = { succeeded: "good", running: "busy", waiting: "busy", stopped: "idle" };

export function JobsView() {
  const { value, error } = useLoaded<{ jobs: Job[]; schedules: Schedule[] }>("/v1/jobs", 3000);
  return (
    <>
      <h1>Jobs</h1>
      {error && <p class="error">{error}</p>}
      {value && value.schedules.length > 0 && (
        <section>
          <h2 id="schedules">Schedules</h2>
          <Table labelledBy="schedules" columns={["Schedule", "Service", "When", "Next", "Last"]}>
            {value.schedules.map((each) => (
              <tr key={`${each.project}/${each.service}/${each.name}`}>
                <th scope="row">{each.name}</th>
                <td>
                  <a href={serviceLink(`${each.project}/${each.service}`)}>{each.service}</a>
                </td>
                <td class="mono">{each.cron}</td>
                <td>{each.next === null ? "never" : date(each.next)}</td>
                <td>{each.last ? <Badge tone={JOB_TONES[each.last.state] ?? "bad"} text={each.last.state} /> : "–"}</td>
              </tr>
            ))}
          </Table>
        </section>
      )}
      <section>
        <h2 id="jobs">Latest</h2>
        {value && !value.jobs.length && (
          <p class="panel empty">
            No job has run. <code>meshd run SERVICE -- COMMAND</code> runs one.
          </p>
        )}
        {value && value.jobs.length > 0 && (
          <Table labelledBy="jobs" columns={["Job", "State", "Service", "Command", "Started", number("Exit code"), "Why"]}>
            {value.jobs.slice(0, 200).map((each) => (
              <tr key={each.id}>
                <th scope="row">{each.id}</th>
                <td>
                  <Badge tone={JOB_TONES[each.state] ?? "bad"} text={each.state} />
                </td>
                <td>
                  <a href={serviceLink(`${each.project}/${each.service}`)}>{each.service}</a>
                </td>
                <td class="mono text">{each.command.join(" ")}</td>
                <td>{date(each.started || each.at)}</td>
                <td class="number">{each.exit_code ?? "–"}</td>
                <td class="text">{each.text || each.cause}</td>
              </tr>
            ))}
          </Table>
        )}
      </section>
    </>
  );
}

const CERTIFICATE_TONES: Record<string, Tone> = { valid: "good", pending: "busy", expired: "bad", failing: "bad" };

export function CertificatesView() {
  const { value, error } = useLoaded<Certificate[]>("/v1/certificates", 10_000);
  return (
    <>
      <h1>Certificates</h1>
      {error && <p class="error">{error}</p>}
      {value && !value.length && <p class="panel empty">No listener has TLS. See docs/proxy.md for certificates from files and from an authority.</p>}
      {value && value.length > 0 && (
        <Table label="Certificates" columns={["Names", "State", "Source", "Valid until", "Next renewal", "Last error"]}>
          {value.map((each) => (
            <tr key={each.names.join() + each.origin}>
              <th scope="row">{each.names.join(", ")}</th>
              <td>
                <Badge tone={CERTIFICATE_TONES[each.state] ?? "busy"} text={each.state} />
              </td>
              <td>{each.source}</td>
              <td>{date(each.expires_at)}</td>
              <td>{date(each.renew_at)}</td>
              <td class="text">{each.error}</td>
            </tr>
          ))}
        </Table>
      )}
    </>
  );
}

function toneOfNode(node: Node): Tone {
  if (node.state !== "ready") return "bad";
  return node.availability === "active" ? "good" : "warn";
}

export function NodesView() {
  const mesh = useLive();
  const { value: nodes, error } = useLoaded<Node[]>("/v1/nodes", 5000);
  const cores = new Map<string, number>();
  for (const service of mesh.sorted) {
    for (const replica of service.replicas) cores.set(replica.node, (cores.get(replica.node) ?? 0) + (replica.cores ?? 0));
  }
  return (
    <>
      <h1>Nodes</h1>
      {error && <p class="error">{error}</p>}
      {mesh.daemon && (
        <dl class="facts">
          <div>
            <dt>Runtime</dt>
            <dd>{mesh.daemon.runtime}</dd>
          </div>
          <div>
            <dt>State</dt>
            <dd>{mesh.daemon.runtime_state}</dd>
          </div>
          <div>
            <dt>Proxy</dt>
            <dd>
              {plural(mesh.daemon.workers.length, "worker")} at {mesh.daemon.proxy.join(", ")}
            </dd>
          </div>
          <div>
            <dt>Version</dt>
            <dd>{mesh.daemon.version}</dd>
          </div>
        </dl>
      )}
      <Table
        label="Nodes"
        columns={["Node", "State", "Role", number("Replicas"), number("CPUs in use"), number("CPUs reserved"), number("Memory reserved"), "Engine"]} empty={nodes !== null && !nodes.length && <p class="empty">The runtime reports no node.</p>}
      >
        {(nodes ?? []).map((node) => (
          <tr key={node.name}>
            <th scope="row">
              {node.name}
              {(node.drain || node.problem) && <span class="reason">{node.drain || node.problem}</span>}
            </th>
            <td>
              <Badge tone={toneOfNode(node)} text={node.availability === "active" ? node.state : node.availability} />
            </td>
            <td>{node.role || "–"}</td>
            <td class="number">{node.replicas}</td>
            <td class="number">{(cores.get(node.name) ?? 0).toFixed(2)}</td>
            <td class="number">
              {node.reserved_cpus.toFixed(1)}/{node.cpus.toFixed(0)}
            </td>
            <td class="number">
              {bytes(node.reserved_memory)} of {bytes(node.memory)}
            </td>
            <td>{node.engine || "–"}</td>
          </tr>
        ))}
      </Table>
    </>
  );
}
