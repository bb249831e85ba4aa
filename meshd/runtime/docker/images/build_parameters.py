"""The parameters of the engine's request to build an image, and what needs BuildKit. Pure.

Used by `image`, which sends the request; `build` packs the context.
"""

import json
from typing import Final

from meshd.spec.model import Build

BUILDKIT_KEYS: Final = ("additional_contexts", "entitlements", "secret_values", "secrets", "ssh")
"""Fields of a build that the engine's own builder does not have, and that the image depends on."""
_CACHE_KEYS: Final = ("cache_to", "no_cache_filter")
"""The same, for fields that only say what is built again."""


def buildkit_keys(build: Build) -> list[str]:
    """Return the keys of the file that this build needs BuildKit for."""
    found = [key for key in BUILDKIT_KEYS if getattr(build, key)]
    return list(dict.fromkeys("secrets" if key == "secret_values" else key for key in found))


def cache_keys(build: Build) -> list[str]:
    """Return the keys of the file that have no effect without BuildKit."""
    return [key for key in _CACHE_KEYS if getattr(build, key)]


def services_as_contexts(build: Build) -> list[str]:
    """Return the additional contexts that are images of other services."""
    return [at for at in build.additional_contexts.values() if at.startswith("service:")]


def choose_platform(build: Build, platform: str, native: str) -> str:
    """Return the platform to build for: that of the service, else the engine's own (`native`) if
    the build lists it or none, else the first of the list. A replica runs on one engine, so that
    other platforms are of no use. Empty for the engine's own."""
    if platform or not build.platforms:
        return platform
    if native in build.platforms:
        return ""
    return build.platforms[0]


def build_parameters(
    names: tuple[str, ...], build: Build, dockerfile: str, labels: dict[str, str], platform: str
) -> list[tuple[str, str]]:
    """Return the parameters of a build with the engine's own builder. `names` are those of the
    image, `labels` additional labels, `platform` the one to build for; empty for the engine's own.
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
