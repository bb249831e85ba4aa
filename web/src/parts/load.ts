// Values that are fetched again from time to time.

import { useEffect, useState } from "preact/hooks";
import { get } from "../session";

export interface Loaded<T> {
  value: T | null;
  error: string;
  reload: () => void;
}

/** Fetch `path` now, whenever it or `version` changes, and every `milliseconds`. */
export function useLoaded<T>(path: string, milliseconds: number, version: unknown = 0): Loaded<T> {
  const [state, set] = useState<{ path: string; value: T | null; error: string }>({ path, value: null, error: "" });
  const [count, setCount] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    const load = () => {
      if (document.hidden) return;
      get<T>(path, abort.signal)
        .then((value) => set({ path, value, error: "" }))
        .catch((error: Error) => {
          if (!abort.signal.aborted) set((before) => ({ ...before, error: error.message }));
        });
    };
    load();
    const timer = setInterval(load, milliseconds);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [path, milliseconds, version, count]);
  return {
    value: state.value,
    error: state.error,
    reload: () => setCount((before) => before + 1),
  };
}
