// The page of a mesh: signs in, follows the live state, and shows one view at a time.

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import "uplot/dist/uPlot.min.css";
import { keyOf, live, useLive, type Connection } from "./live";
import { say, Toasts } from "./parts/dialogs";
import { Icon, type IconName } from "./parts/icons";
import { Palette, type Command } from "./parts/Palette";
import { serviceLink, useRoute, type Route } from "./router";
import { forget, get, hasKey, Problem, signIn, signOut, takeCode } from "./session";
import "./style.css";
import * as theme from "./theme";
import type { Caller } from "./types";
import { ActionDialog, actionsFor, LABELS, type Chosen } from "./views/actions";
import { CertificatesView, EventsView, JobsView, NodesView } from "./views/lists";
import { MapView } from "./views/MapView";
import { Overview } from "./views/Overview";
import { RecordsView, RecordView } from "./views/Records";
import { ServiceView } from "./views/ServiceView";
import { SignIn } from "./views/SignIn";

const VIEWS: { view: Route["view"]; text: string; icon: IconName; link: string }[] = [
  { view: "overview", text: "Overview", icon: "overview", link: "#/" },
  { view: "map", text: "Map", icon: "map", link: "#/map" },
  { view: "events", text: "Events", icon: "events", link: "#/events" },
  { view: "records", text: "Records", icon: "record", link: "#/records" },
  { view: "jobs", text: "Jobs", icon: "jobs", link: "#/jobs" },
  { view: "certificates", text: "Certificates", icon: "certificates", link: "#/certificates" },
  { view: "nodes", text: "Nodes", icon: "nodes", link: "#/nodes" },
];

/** The views that show one thing, with the view that lists it. */
const PARENTS: Partial<Record<Route["view"], Route["view"]>> = { service: "overview", record: "records" };

const CONNECTIONS: Record<Connection, string> = {
  connecting: "Connecting …",
  open: "Live",
  lost: "No answer; trying again",
  "signed-out": "Signed out",
};

function App() {
  const [caller, setCaller] = useState<Caller | null>(null);
  const [problem, setProblem] = useState("");
  const [ready, setReady] = useState(false);
  useEffect(() => {
    const begin = async () => {
      const code = takeCode();
      try {
        if (code !== null) setCaller(await signIn({ code }));
        else if (hasKey()) setCaller(await get<Caller>("/v1/caller"));
      } catch (error) {
        if (error instanceof Problem && error.status === 401 && code === null) forget();
        else setProblem((error as Error).message);
      }
      setReady(true);
    };
    void begin();
    // A link that is opened while the page is open.
    const again = () => location.hash.startsWith("#code=") && void begin();
    addEventListener("hashchange", again);
    return () => removeEventListener("hashchange", again);
  }, []);
  if (!ready) return null;
  if (caller === null) return <SignIn problem={problem} onSignedIn={setCaller} />;
  return <Mesh caller={caller} onLeave={() => setCaller(null)} />;
}

function Mesh({ caller, onLeave }: { caller: Caller; onLeave: () => void }) {
  const mesh = useLive();
  const route = useRoute();
  const [palette, setPalette] = useState(false);
  const [chosen, setChosen] = useState<Chosen | null>(null);
  const main = useRef<HTMLElement>(null);
  const canOperate = caller.role !== "view";

  useEffect(() => {
    live.start();
    return () => live.stop();
  }, []);

  useEffect(() => {
    if (mesh.connection === "signed-out") {
      forget();
      onLeave();
    }
  }, [mesh.connection]);

  const where = `${route.view} ${route.service}`;
  const visited = useRef(where);
  useEffect(() => {
    document.title = `${route.view === "service" ? route.service.split("/")[1] : route.view === "record" ? "Record" : (VIEWS.find((each) => each.view === route.view)?.text ?? "")} · meshd`;
    if (visited.current === where) return;
    visited.current = where;
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [where]);

  useEffect(() => {
    const key = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setPalette((open) => !open);
      }
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);

  const leave = async () => {
    // First nothing may ask any more: an answer to it would be that the session has ended.
    live.stop();
    onLeave();
    try {
      await signOut();
    } catch (error) {
      say((error as Error).message, true);
    }
  };

  const commands = useMemo<Command[]>(() => {
    if (!palette) return [];
    const services = mesh.sorted;
    return [
      ...VIEWS.map((each) => ({ text: each.text, hint: "view", icon: each.icon, run: () => (location.hash = each.link) })),
      ...services.map((each) => ({ text: keyOf(each), hint: "service", icon: "overview" as const, run: () => (location.hash = serviceLink(keyOf(each))) })),
      ...services.map((each) => ({ text: `Logs of ${keyOf(each)}`, hint: "logs", icon: "events" as const, run: () => (location.hash = serviceLink(keyOf(each), "logs")) })),
      ...(canOperate
        ? services.flatMap((service) =>
            actionsFor(service).map((name) => ({
              text: `${LABELS[name]} ${keyOf(service)}`,
              hint: "action",
              icon: name === "undo" ? ("undo" as const) : name === "restart" ? ("restart" as const) : name === "scale" ? ("scale" as const) : ("pause" as const),
              run: () => setChosen({ name, service }),
            })),
          )
        : []),
      { text: "Switch between light and dark", hint: "theme", icon: "moon", run: theme.toggle },
      { text: "Sign out", hint: "session", icon: "leave", run: () => void leave() },
    ];
  }, [palette]);

  return (
    <div class="frame">
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>
        Skip to the content
      </a>
      <header class="side">
        <a class="brand" href="#/" aria-label="meshd, overview">
          <span class="logo">
            <Icon name="map" />
          </span>
          meshd
        </a>
        <button type="button" class="search" onClick={() => setPalette(true)}>
          <Icon name="search" />
          <span class="word">Search</span>
          <kbd>Ctrl K</kbd>
        </button>
        <nav aria-label="Views">
          {VIEWS.map((each) => (
            <a key={each.view} href={each.link} aria-current={route.view === each.view || PARENTS[route.view] === each.view ? "page" : undefined}>
              <Icon name={each.icon} />
              <span>{each.text}</span>
            </a>
          ))}
        </nav>
        <Foot connection={mesh.connection} caller={caller} runtime={mesh.daemon?.runtime ?? ""} onLeave={() => void leave()} />
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Trouble />
        {route.view === "overview" && (mesh.at ? <Overview /> : <p class="empty">Connecting …</p>)}
        {route.view === "service" && <ServiceView name={route.service} tab={route.tab} canOperate={canOperate} onAction={setChosen} />}
        {route.view === "map" && (mesh.at ? <MapView /> : <h1>Map</h1>)}
        {route.view === "events" && <EventsView />}
        {route.view === "records" && <RecordsView canOperate={canOperate} />}
        {route.view === "record" && <RecordView key={route.service} id={route.service} />}
        {route.view === "jobs" && <JobsView />}
        {route.view === "certificates" && <CertificatesView />}
        {route.view === "nodes" && <NodesView />}
        {route.view === "missing" && (
          <>
            <h1>Not found</h1>
            <p class="empty">
              This page has no such part. <a href="#/">Overview</a>
            </p>
          </>
        )}
      </main>
      {palette && <Palette commands={commands} onClose={() => setPalette(false)} />}
      {chosen && <ActionDialog chosen={chosen} onClose={() => setChosen(null)} />}
      <Toasts />
    </div>
  );
}

/** What is wrong with the mesh as a whole. */
function Trouble() {
  const mesh = useLive();
  const lines: string[] = [];
  if (mesh.connection === "lost") lines.push("The daemon does not answer. What you see is old.");
  if (mesh.daemon && mesh.daemon.runtime_state !== "ok") lines.push(`The runtime ${mesh.daemon.runtime_state}. Requests are still served; replicas are not replaced.`);
  if (mesh.daemon && mesh.daemon.store_state !== "ok") lines.push(`The state cannot be written: ${mesh.daemon.store_state}`);
  if (!lines.length) return null;
  return (
    <div class="trouble" role="alert">
      {lines.map((line) => (
        <p key={line}>{line}</p>
      ))}
    </div>
  );
}

function Foot({ connection, caller, runtime, onLeave }: { connection: Connection; caller: Caller; runtime: string; onLeave: () => void }) {
  const current = theme.useTheme();
  return (
    <div class="foot">
      <p class="connection" role="status">
        <span class={`dot ${connection === "open" ? "good" : "bad"}`} aria-hidden="true" />
        {CONNECTIONS[connection]}
        {runtime && connection === "open" && <span class="muted"> · {runtime}</span>}
      </p>
      <span class="foot-buttons">
        <button type="button" class="quiet" onClick={theme.toggle} aria-label={current === "dark" ? "Use light colors" : "Use dark colors"}>
          <Icon name={current === "dark" ? "sun" : "moon"} />
        </button>
        <button type="button" class="quiet" onClick={onLeave} aria-label={`Sign out; the role is ${caller.role}`} title={`Sign out (role ${caller.role})`}>
          <Icon name="leave" />
        </button>
      </span>
    </div>
  );
}

theme.apply();
render(<App />, document.getElementById("app")!);
