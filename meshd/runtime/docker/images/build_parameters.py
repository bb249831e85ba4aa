"""The parameters of the engine's request to build an image, and what needs BuildKit. Pure.

Used by `image`, which sends the request; `build` packs the context.
"""

import json
from typing import Final

from meshd.spec.model import Build

BUILDKIT_KEYS: Final = ("additional_contexts", "entitlements", "secrets", "ssh")
"""Keys of `build` without which the image would be another one, and that the engine's own builder
does not have."""


def buildkit_keys(build: Build) -> list[str]:
    """Return the keys that this build needs BuildKit for."""
    found = [key for key in BUILDKIT_KEYS if getattr(build, key)]
    return [*found, *(["platforms"] if len(build.platforms) > 1 else [])]


def build_parameters(
    names: tuple[str, ...], build: Build, dockerfile: str, labels: dict[str, str], platform: str
) -> list[tuple[str, str]]:
    """Return the parameters of a build with the engine's own builder. `names` are those of the
    image, `labels` additional labels, `platform` that of the service; empty for the engine's own.
    """
    limits = [
        {"Name": name, "Soft": limit.soft, "Hard": limit.hard}
        for name, limit in build.ulimits.items()
    ]
    hosts = [
        f"{name}:{address}"
        for name, addresses in build.extra_hosts.items()
        for address in addresses.split(",")
    ]
    platform = next(iter(build.platforms), platform)
    optional = {
        "remote": build.context if build.is_remote else "",
        "cachefrom": json.dumps(build.cache_from) if build.cache_from else "",
        "networkmode": build.network,
        "nocache": "1" if build.no_cache else "",
        "platform": platform,
        "pull": "1" if build.pull else "",
        "shmsize": str(build.shm_size) if build.shm_size else "",
        "ulimits": json.dumps(limits) if limits else "",
    }
    return [
        *(("t", name) for name in dict.fromkeys((*names, *build.tags))),
        ("dockerfile", dockerfile),
        ("target", build.target),
        ("buildargs", json.dumps(build.args)),
        ("labels", json.dumps({**build.labels, **labels})),
        ("forcerm", "1"),
        *((name, value) for name, value in optional.items() if value),
        *(("extrahosts", host) for host in hosts),
    ]
