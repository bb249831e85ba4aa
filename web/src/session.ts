// Requests to the API. A session is a cookie that scripts cannot read, and a key that only this
// page has: cookies are shared with all other ports of the host.

import type { Caller } from "./types";

const KEY = "meshd.key";

export class Problem extends Error {
  constructor(
    readonly status: number,
    text: string,
  ) {
    super(text);
  }
}

export function hasKey(): boolean {
  return localStorage.getItem(KEY) !== null;
}

export function forget(): void {
  localStorage.removeItem(KEY);
}

function headers(more: Record<string, string> = {}): Record<string, string> {
  return { "X-Meshd-Key": localStorage.getItem(KEY) ?? "", ...more };
}

async function check(response: Response): Promise<Response> {
  if (response.ok) return response;
  let text = response.statusText;
  try {
    text = ((await response.json()) as { detail?: string }).detail ?? text;
  } catch {
    // The body is not JSON: the status text has to do.
  }
  throw new Problem(response.status, text);
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await fetch(path, { headers: headers(), signal });
  return (await (await check(response)).json()) as T;
}

export async function send<T>(method: string, path: string, body?: unknown): Promise<T | null> {
  const response = await fetch(path, {
    method,
    headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await (await check(response)).text();
  return text ? (JSON.parse(text) as T) : null;
}

/** Call `opened` once, and `take` with each value of a stream until it ends or `signal` aborts it. */
export async function stream<T>(path: string, take: (value: T) => void, signal: AbortSignal, opened?: () => void): Promise<void> {
  const response = await check(await fetch(path, { headers: headers({ Accept: "text/event-stream" }), signal }));
  opened?.();
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop()!;
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data !== undefined) take(JSON.parse(data.slice(6)) as T);
    }
  }
}

export async function signIn(body: { code?: string; token?: string }): Promise<Caller> {
  const session = (await send<{ key: string; caller: Caller }>("POST", "/session", body))!;
  localStorage.setItem(KEY, session.key);
  return session.caller;
}

export async function signOut(): Promise<void> {
  await send("DELETE", "/session");
  forget();
}

/** Return the code of a sign-in link, and remove it from the address. */
export function takeCode(): string | null {
  const code = /^#code=(.+)$/.exec(location.hash)?.[1] ?? null;
  if (code !== null) history.replaceState(null, "", "/#/");
  return code;
}
