// What a visitor without a session sees.

import { useState } from "preact/hooks";
import { Icon } from "../parts/icons";
import { signIn } from "../session";
import type { Caller } from "../types";

export function SignIn({ problem, onSignedIn }: { problem: string; onSignedIn: (caller: Caller) => void }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(problem);
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      onSignedIn(await signIn({ token }));
    } catch (failure) {
      setError((failure as Error).message);
    }
  };
  return (
    <main class="sign-in">
      <form onSubmit={(event) => void submit(event)}>
        <h1>
          <span class="logo">
            <Icon name="map" />
          </span>
          meshd
        </h1>
        <p>
          To sign in, run <code>meshd ui</code> on the machine of the daemon. It prints a link that works once.
        </p>
        <label>
          Or paste a token of <code>meshd token create</code>
          <input type="password" autocomplete="off" value={token} onInput={(event) => setToken(event.currentTarget.value)} />
        </label>
        {error && (
          <p class="error" role="alert">
            {error}
          </p>
        )}
        <button type="submit" class="primary" disabled={!token.trim()}>
          Sign in
        </button>
      </form>
    </main>
  );
}
