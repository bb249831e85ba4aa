// The output of all replicas of a service, as it is written, with search and context.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { time } from "../format";
import { followLogs } from "../logs";
import type { LogLine, Service } from "../types";

const KEPT = 5000;
const SHOWN = 800;
const HUES = 8;

function hueOf(replica: string): number {
  let hash = 0;
  for (const character of replica) hash = (hash * 31 + character.charCodeAt(0)) >>> 0;
  return hash % HUES;
}

interface Shown {
  index: number;
  line: LogLine;
  match: boolean;
}

export function Logs({ service }: { service: Service }) {
  const lines = useRef<LogLine[]>([]);
  const dropped = useRef(0);
  const [count, setCount] = useState(0);
  const [search, setSearch] = useState("");
  const [replica, setReplica] = useState("");
  const [context, setContext] = useState(0);
  const [follows, setFollows] = useState(true);
  const [error, setError] = useState("");
  const box = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const abort = new AbortController();
    let frame = 0;
    lines.current = [];
    dropped.current = 0;
    const take = (line: LogLine) => {
      insert(lines.current, line);
      if (lines.current.length > KEPT + 500) {
        dropped.current += lines.current.length - KEPT;
        lines.current = lines.current.slice(-KEPT);
      }
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        setCount((before) => before + 1);
      });
    };
    void followLogs(service, take, setError, abort.signal);
    return () => {
      abort.abort();
      cancelAnimationFrame(frame);
    };
  }, [service.project, service.name]);

  const pattern = useMemo(() => {
    if (!search) return null;
    try {
      return new RegExp(search, "i");
    } catch {
      return new RegExp(search.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
    }
  }, [search]);

  const shown = useMemo(() => select(lines.current, replica, pattern, context, dropped.current), [count, replica, pattern, context]);
  const replicas = [...new Set([...service.replicas.map((each) => each.name), ...lines.current.map((each) => each.replica)])].sort();

  useEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown, follows]);

  return (
    <section aria-labelledby="logs">
      <h2 id="logs" class="hidden">
        Logs
      </h2>
      <div class="toolbar">
        <input type="search" placeholder="Search (text or regular expression)" aria-label="Search the logs" value={search} onInput={(event) => setSearch(event.currentTarget.value)} />
        <select aria-label="Replica" value={replica} onChange={(event) => setReplica(event.currentTarget.value)}>
          <option value="">all replicas</option>
          {replicas.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
        <select aria-label="Lines around each match" value={String(context)} disabled={!pattern} onChange={(event) => setContext(Number(event.currentTarget.value))}>
          <option value="0">no context</option>
          <option value="2">2 lines around</option>
          <option value="10">10 lines around</option>
        </select>
        <label class="check">
          <input type="checkbox" checked={follows} onChange={(event) => setFollows(event.currentTarget.checked)} /> follow
        </label>
        <span class="muted" role="status">
          {pattern ? `${shown.filter((each) => each.match).length} matches in ${lines.current.length} lines` : `${lines.current.length} lines`}
        </span>
      </div>
      {error && <p class="error">{error}</p>}
      <div
        class="panel log"
        ref={box}
        role="log"
        aria-label={`Output of ${service.name}`}
        aria-live="off"
        tabIndex={0}
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          const atEnd = scrollTop + clientHeight >= scrollHeight - 20;
          if (atEnd !== follows) setFollows(atEnd);
        }}
      >
        {shown.map(({ index, line, match }) => (
          <div key={index} class={pattern && !match ? "line around" : "line"}>
            <span class="at">{line.at ? time(line.at) : ""}</span>
            <span class={`who hue${hueOf(line.replica)}`}>{line.replica}</span>
            <span class="what">{pattern && match ? highlight(line.line, pattern) : line.line}</span>
          </div>
        ))}
        {!shown.length && <p class="empty">{lines.current.length ? "No line matches." : "No output yet."}</p>}
      </div>
    </section>
  );
}

/** Add a line behind those that were not written after it: replicas send their past lines mixed. */
function insert(lines: LogLine[], line: LogLine): void {
  let place = lines.length;
  while (line.at && place > 0 && lines[place - 1]!.at > line.at) place -= 1;
  lines.splice(place, 0, line);
}

function select(lines: LogLine[], replica: string, pattern: RegExp | null, context: number, offset: number): Shown[] {
  const own = lines.map((line, index) => ({ index: index + offset, line })).filter(({ line }) => !replica || line.replica === replica);
  if (!pattern) return own.slice(-SHOWN).map((each) => ({ ...each, match: true }));
  const found = own.map(({ line }) => pattern.test(line.line));
  return own
    .map((each, index) => ({ ...each, match: found[index]! }))
    .filter((_, index) => {
      for (let near = Math.max(0, index - context); near <= Math.min(found.length - 1, index + context); near++) {
        if (found[near]) return true;
      }
      return false;
    })
    .slice(-SHOWN);
}

function highlight(text: string, pattern: RegExp) {
  const match = pattern.exec(text);
  if (!match || !match[0]) return text;
  const end = match.index + match[0].length;
  return (
    <>
      {text.slice(0, match.index)}
      <mark>{match[0]}</mark>
      {text.slice(end)}
    </>
  );
}
