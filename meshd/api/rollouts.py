"""What can be done to a rollout by hand, as the surface sees it."""

from collections.abc import Sequence
from typing import Protocol

from meshd.api.model import Release


class Rollouts(Protocol):
    """Every method may raise NoSuchThing, and Refused for what makes no sense now."""

    def releases(self, project: str, service: str, limit: int) -> Sequence[Release]:
        """The newest releases of a service, the newest first."""

    async def undo(self, project: str, service: str, to: int, who: str) -> Release:
        """Go back to release `to`; 0 is the last good one of another revision than runs. The
        release that this begins."""

    def pause(self, project: str, service: str, who: str) -> None:
        """Leave the rollout that is under way as it is."""

    def resume(self, project: str, service: str, who: str) -> None:
        """Go on with a paused rollout."""
