// Which view is shown: the part of the address after `#`.

import { useEffect, useState } from "preact/hooks";

export interface Route {
  view: "overview" | "service" | "map" | "events" | "jobs" | "certificates" | "nodes" | "records" | "record" | "missing";
  /** Its key, or the id of the record. */
  service: string;
  tab: string;
}

export function parse(hash: string): Route {
  const parts = hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const empty = { service: "", tab: "" };
  if (parts[0] === "") return { view: "overview", ...empty };
  if (parts[0] === "services" && parts[1] && parts[2]) {
    return { view: "service", service: `${parts[1]}/${parts[2]}`, tab: parts[3] ?? "" };
  }
  if (parts[0] === "records" && parts[1]) return { view: "record", service: parts[1], tab: "" };
  const lists = ["map", "events", "jobs", "certificates", "nodes", "records"] as const;
  const view = lists.find((each) => each === parts[0]);
  return { view: view ?? "missing", ...empty };
}

export function serviceLink(key: string, tab = ""): string {
  const [project, name] = key.split("/");
  const end = tab ? `/${tab}` : "";
  return `#/services/${encodeURIComponent(project!)}/${encodeURIComponent(name!)}${end}`;
}

export function useRoute(): Route {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const change = () => set(parse(location.hash));
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  return route;
}

export function recordLink(id: string): string {
  return `#/records/${encodeURIComponent(id)}`;
}
