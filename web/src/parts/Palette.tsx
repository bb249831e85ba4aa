// The command palette: every view, service and action by its name.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Icon, type IconName } from "./icons";

export interface Command {
  text: string;
  hint: string;
  icon: IconName;
  run: () => void;
}

const SHOWN = 12;

/** Return how well a text matches: all letters in order, better if together and at the start. */
function score(text: string, query: string): number {
  if (!query) return 1;
  const lower = text.toLowerCase();
  const found = lower.indexOf(query);
  if (found >= 0) return 1000 - found - lower.length / 100;
  let at = -1;
  let gaps = 0;
  for (const letter of query) {
    if (letter === " ") continue;
    const next = lower.indexOf(letter, at + 1);
    if (next < 0) return 0;
    gaps += next - at - 1;
    at = next;
  }
  return Math.max(0.1, 500 - gaps);
}

export function Palette({ commands, onClose }: { commands: Command[]; onClose: () => void }) {
  const [query, setQuery] = useState("");
  const [chosen, setChosen] = useState(0);
  const dialog = useRef<HTMLDialogElement>(null);
  const shown = useMemo(() => {
    const text = query.trim().toLowerCase();
    return commands
      .map((command) => ({ command, rank: score(command.text, text) }))
      .filter(({ rank }) => rank > 0)
      .sort((a, b) => b.rank - a.rank)
      .slice(0, SHOWN)
      .map(({ command }) => command);
  }, [commands, query]);
  const current = Math.min(chosen, shown.length - 1);
  useEffect(() => {
    const element = dialog.current!;
    element.showModal();
    return () => element.close();
  }, []);
  const run = (command: Command | undefined) => {
    if (!command) return;
    onClose();
    command.run();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown") setChosen(Math.min(current + 1, shown.length - 1));
    else if (event.key === "ArrowUp") setChosen(Math.max(current - 1, 0));
    else if (event.key === "Enter") run(shown[current]);
    else return;
    event.preventDefault();
  };
  return (
    <dialog ref={dialog} class="palette" aria-label="Commands" onClose={onClose} onClick={(event) => event.target === dialog.current && onClose()}>
      <div class="inside">
        <div class="palette-input">
          <Icon name="search" />
          <input
            type="text"
            role="combobox"
            aria-label="Search services and commands"
            aria-expanded="true"
            aria-controls="palette-list"
            aria-activedescendant={shown.length ? `palette-${current}` : undefined}
            placeholder="Search services and commands"
            value={query}
            onInput={(event) => {
              setQuery(event.currentTarget.value);
              setChosen(0);
            }}
            onKeyDown={key}
          />
          <kbd>Esc</kbd>
        </div>
        {shown.length > 0 ? (
          <ul id="palette-list" role="listbox" aria-label="Commands">
            {shown.map((command, index) => (
              <li key={command.text} id={`palette-${index}`} role="option" aria-selected={index === current} onMouseMove={() => setChosen(index)} onClick={() => run(command)}>
                <Icon name={command.icon} />
                <span>{command.text}</span>
                <span class="muted">{command.hint}</span>
              </li>
            ))}
          </ul>
        ) : (
          <p class="empty" id="palette-list">
            Nothing matches.
          </p>
        )}
      </div>
    </dialog>
  );
}
