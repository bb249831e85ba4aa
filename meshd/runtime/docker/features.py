"""Features of a service that need a newer engine than the oldest one that meshd supports. Pure.

`runtime` refuses or ignores them before a start, `container` names the API version of a request.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from meshd.spec.model import Service

ApiVersion = tuple[int, int]


@dataclass(frozen=True, slots=True)
class NewerFeature:
    """A feature that older engines do not know.

    - `text`: its name in the Compose file.
    - `api`: the first version of the engine's API with it.
    - `engine`: the first version of the engine with it, for people.
    - `needed`: whether the service would run on other data or in another network without it;
      otherwise it runs without it, with a warning.
    """

    text: str
    api: ApiVersion
    engine: str
    needed: bool = False

    def __str__(self) -> str:
        return f"{self.text} needs Docker Engine {self.engine}"


def newer_features(service: Service) -> Iterator[NewerFeature]:
    """Yield the features of a service that an old engine does not know."""
    check = service.healthcheck
    if check is not None and check.start_interval:
        yield NewerFeature("healthcheck.start_interval", (1, 44), "25.0")
    if service.options.annotations:
        yield NewerFeature("annotations", (1, 43), "24.0")
    for mount in service.volumes:
        if mount.type == "image":
            yield NewerFeature(f"the image at {mount.target}", (1, 48), "28.0", needed=True)
        elif mount.subpath:
            yield NewerFeature(f"the subpath at {mount.target}", (1, 45), "26.0", needed=True)
        if mount.recursive in {"writable", "readonly"}:
            yield NewerFeature(f"recursive at {mount.target}", (1, 44), "25.0", needed=True)
    for name, attachment in service.attachments.items():
        if attachment.gw_priority:
            yield NewerFeature(f"gw_priority of the network {name}", (1, 48), "28.0")
        if attachment.interface_name:
            yield NewerFeature(f"interface_name in the network {name}", (1, 49), "28.1")


def missing_features(service: Service, api: ApiVersion) -> list[NewerFeature]:
    """Return the features that an engine with this version of the API does not know."""
    return [each for each in newer_features(service) if each.api > api]
