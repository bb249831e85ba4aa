"""Pull images from their registries, and report how far each pull is.

Used by `image`. The credentials come from `auth`. `PullProgress` is pure.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from yarl import URL

from meshd.model.runtime import ImageProgress
from meshd.runtime.base import ImageMissing, RuntimeUnavailable
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.images.auth import find_login
from meshd.spec.image_name import is_image_id, parse_image_name

STALLED: Final = 300.0
"""Seconds without a message of the engine after which a pull counts as failed. A pull that makes
progress may take any time."""
ASK_REGISTRY: Final = 10.0
"""Seconds for a registry to answer whether it has an image."""
_DOWNLOADED: Final = frozenset(
    {"Download complete", "Verifying Checksum", "Extracting", "Pull complete"}
)
_COMPLETE: Final = frozenset({"Pull complete", "Already exists"})
_WAITING: Final = frozenset({"Pulling fs layer", "Waiting"})


@dataclass(slots=True, eq=False)
class PullProgress:
    """The layers of one pull, from the messages of the engine.

    - `image`: what is pulled; `service`: the service that needs it.
    - `since`: Unix time of the start.
    - `complete`: whether each layer is on the engine, by its id.
    - `received`, `sizes`: bytes of each layer that is downloaded.
    """

    image: str
    service: str
    since: float
    complete: dict[str, bool] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, message: Mapping[str, Any]) -> None:
        """Take one message into account."""
        layer, status = str(message.get("id") or ""), str(message.get("status") or "")
        detail = message.get("progressDetail") or {}
        if status in _COMPLETE:
            self.complete[layer] = True
        elif status in _WAITING or status == "Downloading" or status in _DOWNLOADED:
            self.complete.setdefault(layer, False)
        else:
            return
        if status == "Downloading" and int(detail.get("total") or 0) > 0:
            self.received[layer] = int(detail.get("current") or 0)
            self.sizes[layer] = int(detail["total"])
        elif status in _DOWNLOADED and layer in self.sizes:
            self.received[layer] = self.sizes[layer]

    @property
    def detail(self) -> str:
        """The number of layers, for people; empty before the first one is known."""
        if not self.complete:
            return ""
        return f"{sum(self.complete.values())} of {len(self.complete)} layers"


class Puller:
    """Pulls images of one engine; knows those that are being pulled."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pulls: list[PullProgress] = []

    def progress(self) -> Sequence[ImageProgress]:
        """Return the images that are being pulled now."""
        return [
            ImageProgress(
                image=pull.image,
                service=pull.service,
                action="pull",
                detail=pull.detail,
                current=sum(pull.received.values()),
                total=sum(pull.sizes.values()),
                since=pull.since,
            )
            for pull in self._pulls
        ]

    async def pull(self, image: str, service: str, platform: str = "") -> None:
        """Pull an image, by default for the platform of the engine. Raises ImageMissing."""
        progress = PullProgress(image, service, time.time())
        self._pulls.append(progress)
        login = await find_login(image)
        try:
            await self._pull(image, platform, login.headers, progress)
        except ImageMissing as failure:
            hint = f" ({login.problem})" if login.problem else ""
            raise ImageMissing(
                f"service {service}: image {image} is not on the engine, and pulling it failed: "
                f"{failure}{hint}"
            ) from failure
        finally:
            self._pulls.remove(progress)

    async def _pull(
        self, image: str, platform: str, headers: Mapping[str, str], progress: PullProgress
    ) -> None:
        """Send the request, and read the engine's messages to their end."""
        if is_image_id(image):
            raise ImageMissing("an image id cannot be pulled; name the image")
        name = parse_image_name(image)
        params = {"fromImage": name.repository, "tag": name.digest or name.tag}
        if platform:
            params["platform"] = platform
        try:
            async with (
                self._engine.request(None, otherwise=ImageMissing) as docker,
                asyncio.timeout(STALLED) as stalled,
            ):
                url = URL(f"{docker.docker_host}/{docker.api_version}/images/create")
                async with docker.session.post(url, params=params, headers=headers) as response:
                    async for line in response.content:
                        stalled.reschedule(asyncio.get_running_loop().time() + STALLED)
                        message = json.loads(line)
                        failure = message.get("error") or (
                            not response.ok and message.get("message")
                        )
                        if failure:
                            raise ImageMissing(str(failure))
                        progress.add(message)
        except (TimeoutError, ValueError) as error:
            reason = f"no progress for {STALLED:g} s" if isinstance(error, TimeoutError) else error
            raise ImageMissing(str(reason)) from error

    async def missing_reason(self, image: str) -> str | None:
        """Return the reason why an image that is not on the engine cannot be pulled, in one line;
        None if its registry has it."""
        login = await find_login(image)
        try:
            async with self._engine.request(ASK_REGISTRY, otherwise=ImageMissing) as docker:
                path = f"{docker.api_version}/distribution/{image}/json"
                url = URL(f"{docker.docker_host}/{path}")
                async with docker.session.get(url, headers=login.headers) as response:
                    if response.ok:
                        return None
                    reason = str((await response.json()).get("message", response.reason))
        except (RuntimeUnavailable, ImageMissing) as failure:
            reason = str(failure)
        hint = f" ({login.problem})" if login.problem else ""
        return f"image {image} is not on the engine and cannot be pulled: {reason}{hint}"
