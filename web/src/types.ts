// The values of the API that the page reads; docs/openapi.json describes all of them.

export type Role = "view" | "operate" | "admin";

export interface Caller {
  who: string;
  role: Role;
  project: string;
}

export interface Replica {
  name: string;
  revision: string;
  phase: string;
  node: string;
  address: string;
  reason: string;
  since: number;
  restarts: number;
  in_flight: number;
  ejected: boolean;
  cpu: number | null;
  memory: number | null;
  cores: number | null;
}

export interface Service {
  project: string;
  name: string;
  wanted: number;
  running: number;
  ready: number;
  minimum: number;
  maximum: number;
  revision: string;
  state: string;
  routes: string[];
  rps: number;
  in_flight: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
  requests_total: number;
  errors_total: number;
  errors_per_second: number;
  retries_total: number;
  parked: number;
  override: number | null;
  override_until: number;
  paused: number;
  last: string;
  replicas: Replica[];
  waiting: string;
  coming: string;
  stage: string;
  trial: string;
  kind: string;
  why: string;
  reached: string[];
  streams: number;
}

export interface Project {
  name: string;
  state: string;
  services: number;
  ready: number;
  wanted: number;
  who: string;
  at: number;
  detail: string;
  trace_url: string;
}

export interface Daemon {
  version: string;
  runtime: string;
  runtime_state: string;
  generation: [number, number];
  workers: number[];
  proxy: string[];
  projects: Project[];
  images: { image: string; service: string; action: string; detail: string }[];
  store_state: string;
}

export interface Call {
  caller: string;
  service: string;
  rps: number;
  errors: number | null;
  p95: number | null;
}

export interface Event {
  id: number;
  at: number;
  kind: string;
  project: string;
  service: string;
  replica: string;
  text: string;
}

export interface LiveUpdate {
  at: number;
  full: boolean;
  daemon: Daemon;
  services: Service[];
  removed: string[];
  calls: Call[];
  events: Event[];
}

export interface Sparkline {
  service: string;
  step: number;
  first: number;
  rps: (number | null)[];
  errors: (number | null)[];
  p95: (number | null)[];
  ready: (number | null)[];
}

export interface HistoryPoint {
  at: number;
  step: number;
  rps: number;
  errors: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
  in_flight: number;
  ready: number;
  desired: number;
  cores: number;
}

export interface LatencyMap {
  step: number;
  first: number;
  bounds: number[];
  counts: number[][];
}

export interface Decision {
  at: number;
  desired: number;
  previous: number;
  wanted: number;
  cause: string;
  reason: string;
  limits: string[];
  rejected: string[];
  override: number | null;
}

export interface Release {
  number: number;
  revision: string;
  previous: string;
  how: string;
  who: string;
  at: number;
  changed: string;
  outcome: string;
  cause: string;
  ended: number;
}

export interface LogLine {
  replica: string;
  line: string;
  at: number;
}

export interface Node {
  name: string;
  state: string;
  availability: string;
  role: string;
  address: string;
  engine: string;
  replicas: number;
  cpus: number;
  memory: number;
  reserved_cpus: number;
  reserved_memory: number;
  drain: string;
  problem: string;
}

export interface Certificate {
  names: string[];
  source: string;
  origin: string;
  state: string;
  expires_at: number;
  renew_at: number;
  error: string;
}

export interface Job {
  id: string;
  project: string;
  service: string;
  state: string;
  cause: string;
  at: number;
  started: number;
  ended: number;
  exit_code: number | null;
  text: string;
  command: string[];
}

export interface Schedule {
  project: string;
  service: string;
  name: string;
  cron: string;
  next: number | null;
  last: Job | null;
}

export interface RecordInfo {
  id: string;
  at: number;
  service: string;
  reason: string;
  workers: number;
  bytes: number;
}

/** A request of a record. Values that are empty or 0 are left out. */
export interface RecordedRequest {
  time: number;
  client: string;
  method: string;
  target: string;
  status: number;
  host?: string;
  service?: string;
  endpoint?: string;
  total?: number;
  queue?: number;
  connect?: number;
  first_byte?: number;
  body?: number;
  retries?: number;
  failure?: string;
  detail?: string;
  request_id?: string;
  trace_id?: string;
}

export interface Flight {
  request: RecordedRequest;
  caller?: string;
  choice?: string;
  algorithm?: string;
  candidates?: number;
  load?: number;
  tried?: string[];
}
