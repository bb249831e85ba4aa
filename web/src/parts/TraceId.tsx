/** The id of a trace: a link to a viewer if the project names one, otherwise a button that copies it. */

import { live } from "../live";
import { say } from "./dialogs";
import { Icon } from "./icons";

/** Where the id is put in the `trace_url` of a project. */
const PLACE = "{trace_id}";

async function copy(id: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(id);
    say(`Copied ${id}`);
  } catch {
    // Only pages of secure origins may write to the clipboard.
    say(`This browser does not allow copying here; the id is ${id}`, true);
  }
}

export function TraceId({ id, project }: { id: string; project: string }) {
  const template = live.daemon?.projects.find((each) => each.name === project)?.trace_url ?? "";
  return (
    <span class="trace">
      <span class="muted">trace</span>{" "}
      {/^https?:\/\//.test(template) ? (
        <a class="mono link" href={template.replaceAll(PLACE, id)} target="_blank" rel="noreferrer">
          {id}
        </a>
      ) : (
        <>
          <span class="mono">{id}</span>
          <button type="button" class="quiet copy" aria-label={`Copy trace id ${id}`} title="Copy" onClick={() => void copy(id)}>
            <Icon name="copy" />
          </button>
        </>
      )}
    </span>
  );
}
