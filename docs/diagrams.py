"""Draw the state machines of `docs/state-machines.md` from the transition tables in the code.

`python -m docs.diagrams` rewrites the diagrams between the page's markers;
`tests/architecture/test_diagrams.py` fails while the page is out of date.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from meshd.model.job import JOB_TRANSITIONS
from meshd.model.replica_phase import NEXT
from meshd.model.rollout import ROLLOUT_TRANSITIONS
from meshd.runtime.lease import LEASE_TRANSITIONS
from proxy.request import phases
from proxy.tcp import phases as tcp_phases

PAGE: Final = Path(__file__).with_name("state-machines.md")
TABLES: Final[Mapping[str, Mapping[Any, Collection[Any]]]] = {
    "exchange": {
        phases.NAMES[phase]: [phases.NAMES[each] for each in following]
        for phase, following in phases.TRANSITIONS.items()
    },
    "session": {
        tcp_phases.NAMES[phase]: [tcp_phases.NAMES[each] for each in following]
        for phase, following in tcp_phases.TRANSITIONS.items()
    },
    "replica": NEXT,
    "rollout": ROLLOUT_TRANSITIONS,
    "job": JOB_TRANSITIONS,
    "lease": LEASE_TRANSITIONS,
}
"""Name of a diagram on the page → states with the states that can follow. The first is where it
starts."""


def diagram(table: Mapping[Any, Collection[Any]]) -> str:
    """Return a Mermaid state diagram of a table, in the table's order."""
    states = list(table)
    lines = ["stateDiagram-v2", f"    [*] --> {name_of(states[0])}"]
    for state in states:
        following = [each for each in states if each in table[state]]
        lines += [f"    {name_of(state)} --> {name_of(each)}" for each in following]
        if not following:
            lines.append(f"    {name_of(state)} --> [*]")
    return "\n".join(lines)


def name_of(state: Any) -> str:
    """Return a state's name as an identifier of Mermaid."""
    return str(getattr(state, "name", state)).lower()


def page(text: str) -> str:
    """Return the page's text with the diagrams as the tables are now.

    Raises KeyError for a marker without a table, ValueError for a table without a marker.
    """
    drawn = set()

    def draw(match: "re.Match[str]") -> str:
        name = match[1]
        drawn.add(name)
        return (
            f"<!-- begin {name} -->\n```mermaid\n{diagram(TABLES[name])}\n```\n<!-- end {name} -->"
        )

    new = re.sub(r"<!-- begin (\w+) -->\n.*?<!-- end \1 -->", draw, text, flags=re.DOTALL)
    if missing := TABLES.keys() - drawn:
        raise ValueError(f"no marker for {', '.join(sorted(missing))}")
    return new


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
