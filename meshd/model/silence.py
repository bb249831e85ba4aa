"""Silences: problems that are not sent for a while. Pure.

`meshd.store.silences` keeps them, `meshd.notify` applies them, and the API and `meshd silence` show
and change them.
"""

from typing import Final

from meshd.model.base import RequestBody, Value

MAX_SECONDS: Final = 30 * 86400.0
"""Longest silence in seconds: a forgotten one must end."""
MAX_TEXT: Final = 200
"""Characters of a reason or a name."""


class NewSilence(RequestBody, frozen=True):
    """A silence to create.

    - `project`, `service`, `topic`: what it is for; an empty one: all.
    - `seconds`: how long.
    - `reason`: for people.
    """

    seconds: float
    project: str = ""
    service: str = ""
    topic: str = ""
    reason: str = ""


class Silence(Value, frozen=True):
    """A silence; see `NewSilence`. `until`: Unix time; `who` created it."""

    id: str
    project: str
    service: str
    topic: str
    until: float
    who: str
    reason: str = ""

    def covers(self, topic: str, project: str, service: str, now: float) -> bool:
        """Whether a problem is not sent now."""
        return (
            now < self.until
            and self.topic in ("", topic)
            and self.project in ("", project)
            and self.service in ("", service)
        )
