"""`x-mesh.notify` at the top level: where the mesh sends word when something is wrong.

Part of `meshd.spec.model.project`; `meshd.notify` carries it out.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Duration, Model

Topic = Literal[
    "objective", "no-endpoint", "crash-loop", "rollout", "certificate", "disk", "node", "runtime",
]  # fmt: skip
"""What a notification is about:

- `objective`: a service uses up its error budget too fast
- `no-endpoint`: a service has no ready replica
- `crash-loop`: a replica crashes again and again
- `rollout`: a rollout failed and was rolled back
- `certificate`: a certificate ends soon
- `disk`: a disk or a volume fills up
- `node`: a node does not answer
- `runtime`: the runtime does not answer
"""
TOPICS: tuple[Topic, ...] = (
    "objective", "no-endpoint", "crash-loop", "rollout", "certificate", "disk", "node", "runtime",
)  # fmt: skip


MAX_URL = 2048
"""Characters of a URL; webhooks of chat services have about 100."""


def _expand(value: object) -> object:
    """Expand a URL to a mapping."""
    return {"url": value} if isinstance(value, str) else value


class NotifyTarget(Model):
    """A webhook that gets notifications. A URL in place of the mapping is its `url`.

    - `url`: the URL of the webhook. It is a secret: meshd shows its host only
    - `format`: `json`, or `slack` for Slack and services that take the same messages
    - `events`: the topics to send. Default: all
    - `wait`: seconds that a first notification waits for others to join it
    - `interval`: the least seconds between two messages
    - `repeat`: seconds after which the same problem is sent again
    """

    url: Annotated[str, Field(repr=False)]
    format: Literal["json", "slack"] = "json"
    events: tuple[Topic, ...] = TOPICS
    wait: Annotated[Duration, Field(ge=0, le=3600)] = 10.0
    interval: Annotated[Duration, Field(ge=1, le=86400)] = 60.0
    repeat: Annotated[Duration, Field(ge=60, le=604800)] = 14400.0

    _short = model_validator(mode="before")(_expand)

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            valid = False
        if (
            not valid
            or len(value) > MAX_URL
            or not value.isascii()
            or any(c.isspace() for c in value)
        ):
            # The value stays out of the message, because it is a secret.
            raise ValueError(
                "the webhook is not a valid URL; expected e.g. https://example.com/hook"
            )
        return value

    @property
    def host(self) -> str:
        """The part of the URL that may be shown."""
        return urlsplit(self.url).hostname or ""


def wrap_targets(value: object) -> object:
    """Return a list of targets; one target is a list of one."""
    return [value] if isinstance(value, str | dict) else value
