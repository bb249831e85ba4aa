"""Read the keys of a service that go to the engine as they are: CPU sets, namespaces, devices.

Called by `meshd.spec.reader.service`; the values are in `meshd.spec.model.EngineOptions`.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from meshd.spec import units
from meshd.spec.model import BlockDevice, BlockIo, DeviceRequest
from meshd.spec.reader import networks, values
from meshd.spec.source.cursor import Cursor, KeyTable, join_words

MAX_MICROSECONDS: Final = 1_000_000_000
"""The upper bound of a CPU period or quota; the kernel allows one second per core."""
MAX_SHARES: Final = 262_144
"""The kernel's upper bound of CPU shares."""
MAX_OOM_SCORE: Final = 1000
"""The kernel's bound of the adjustment, in both directions."""
_CONTAINER_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
MIN_WEIGHT, MAX_WEIGHT = 10, 1000
"""The kernel's bounds of a weight of disk access."""
MAX_RATE: Final = 2**40
"""The upper bound of operations per second, above any device."""
MAX_CPUS: Final = 4096
"""The upper bound of a number of CPUs, above any machine."""


def _read_microseconds(at: Cursor) -> int:
    """Read a number of microseconds, or a duration such as `50ms`."""
    text = at.read_string()
    if text.lstrip("-").isdecimal():
        return at.read_integer(low=-1, high=MAX_MICROSECONDS)
    try:
        return round(units.parse_duration(text) * 1_000_000)
    except ValueError as error:
        at.fail(str(error))


def _read_swap(at: Cursor) -> int:
    return -1 if at.read_string() == "-1" else at.read_size()


def _read_namespace(at: Cursor, words: tuple[str, ...], shared: bool = False) -> str:
    """Read a namespace: a word, or if it can be `shared`, that of a service or container."""
    text = at.read_string()
    kind, colon, name = text.partition(":")
    if shared and colon and kind in {"service", "container"}:
        if not name:
            at.fail(f"{text!r} names no {kind}; expected {kind}:NAME")
        return text
    forms = (*words, "service:NAME", "container:NAME") if shared else words
    if text not in words:
        at.fail(f"{text!r} is not valid; expected {join_words(forms)}")
    return text


def _read_volumes_from(at: Cursor) -> tuple[str, ...]:
    for entry in at.elements():
        name, _, mode = entry.read_string().removeprefix("container:").partition(":")
        if not name or mode not in {"", "ro", "rw"}:
            entry.fail(
                f"{entry.node.text!r} is not valid; expected SERVICE, SERVICE:ro or container:NAME"
            )
    return at.read_strings()


def _read_links(at: Cursor) -> tuple[str, ...]:
    for entry in at.elements():
        name, colon, alias = entry.read_string().partition(":")
        if not name or (colon and not alias):
            entry.fail(f"{entry.node.text!r} is not valid; expected NAME or NAME:ALIAS")
    return at.read_strings()


def _read_container_name(at: Cursor) -> str:
    name = at.read_string()
    if not _CONTAINER_NAME.fullmatch(name):
        at.fail(f"{name!r} is not a container name; expected letters, digits, _, . and -")
    return name


def read_isolation(at: Cursor) -> None:
    if at.read_string() != "default":
        at.fail(f"{at.node.text!r} exists for Windows containers only; remove it")


def _read_block_io(at: Cursor) -> BlockIo:
    found: dict[str, object] = {}

    def devices(name: str, key: str, read: Callable[[Cursor], int]) -> Callable[[Cursor], None]:
        return lambda c: found.update(
            {name: c.read_items(lambda item: _read_block_device(item, key, read))}
        )

    weight = partial(Cursor.read_integer, low=MIN_WEIGHT, high=MAX_WEIGHT)
    count = partial(Cursor.read_integer, high=MAX_RATE)
    at.read_keys(
        KeyTable(
            read={
                "weight": lambda c: found.update(weight=weight(c)),
                "weight_device": devices("weight_device", "weight", weight),
                "device_read_bps": devices("device_read_bps", "rate", Cursor.read_size),
                "device_read_iops": devices("device_read_iops", "rate", count),
                "device_write_bps": devices("device_write_bps", "rate", Cursor.read_size),
                "device_write_iops": devices("device_write_iops", "rate", count),
            }
        )
    )
    return BlockIo.model_validate(found)


def _read_block_device(at: Cursor, key: str, read: Callable[[Cursor], int]) -> BlockDevice:
    found: dict[str, object] = {}
    at.read_keys(
        KeyTable(
            read={
                "path": lambda c: found.update(path=c.read_string()),
                key: lambda c: found.update(value=read(c)),
            }
        )
    )
    if len(found) < 2:
        at.fail(f"path or {key} is missing or not valid; expected both")
    return BlockDevice.model_validate(found)


def _read_device(at: Cursor) -> str:
    """Read a device as `HOST:CONTAINER:PERMISSIONS`, in either form."""
    if at.node.mapping is None:
        source, _, rest = at.read_string().partition(":")
        target, _, permissions = rest.partition(":")
    else:
        found: dict[str, str] = {}
        names = ("source", "target", "permissions")
        at.read_keys(KeyTable(read={name: partial(_store, found, name) for name in names}))
        source, target, permissions = (found.get(name, "") for name in names)
    if not source.startswith("/"):
        at.fail(f"{source!r} is not a device of the host; expected a path such as /dev/ttyUSB0")
    return f"{source}:{target or source}:{permissions or 'rwm'}"


def _store(found: dict[str, str], name: str, at: Cursor) -> None:
    found[name] = at.read_string()


def _read_gpus(at: Cursor) -> tuple[DeviceRequest, ...]:
    """Read `gpus`: `all`, or a list of requests."""
    if at.node.sequence is None:
        at.read_one_of("all")
        return (DeviceRequest(count=-1),)
    return tuple(at.read_items(partial(read_device_request, implied=("gpu",))))


def read_device_request(at: Cursor, implied: tuple[str, ...] = ()) -> DeviceRequest:
    """Read one request for devices; its capabilities include the `implied` ones."""
    found: dict[str, object] = {}

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    at.read_keys(
        KeyTable(
            read={
                "driver": put("driver", Cursor.read_string),
                "count": put("count", _read_count),
                "device_ids": put("device_ids", Cursor.read_strings),
                "capabilities": put("capabilities", Cursor.read_strings),
                "options": put("options", values.read_strings_by_name),
            }
        )
    )
    if found.get("count") and found.get("device_ids"):
        at.fail("count and device_ids are both set; expected one of them")
    if not found.get("device_ids"):
        found.setdefault("count", -1)
    found.setdefault("capabilities", ())
    request = DeviceRequest.model_validate(found)
    words = dict.fromkeys((*implied, *request.capabilities))
    return request.model_copy(update={"capabilities": tuple(words)})


def _read_count(at: Cursor) -> int:
    return -1 if at.read_string() == "all" else at.read_integer(low=-1)


READERS: Final[Mapping[str, Callable[[Cursor], object]]] = {
    "container_name": _read_container_name,
    "network_mode": partial(_read_namespace, words=("host", "none", "bridge"), shared=True),
    "mac_address": networks.read_mac_address,
    "privileged": Cursor.read_boolean,
    "tty": Cursor.read_boolean,
    "stdin_open": Cursor.read_boolean,
    "platform": Cursor.read_string,
    "annotations": values.read_strings_by_name,
    "blkio_config": _read_block_io,
    "volumes_from": _read_volumes_from,
    "links": _read_links,
    "external_links": _read_links,
    "cpu_count": partial(Cursor.read_integer, high=MAX_CPUS),
    "cpu_percent": partial(Cursor.read_integer, high=100),
    "hostname": Cursor.read_string,
    "domainname": Cursor.read_string,
    "cpuset": Cursor.read_string,
    "cpu_shares": partial(Cursor.read_integer, high=MAX_SHARES),
    "cpu_period": _read_microseconds,
    "cpu_quota": _read_microseconds,
    "cpu_rt_period": _read_microseconds,
    "cpu_rt_runtime": _read_microseconds,
    "memswap_limit": _read_swap,
    "mem_swappiness": partial(Cursor.read_integer, high=100),
    "oom_score_adj": partial(Cursor.read_integer, low=-MAX_OOM_SCORE, high=MAX_OOM_SCORE),
    "oom_kill_disable": Cursor.read_boolean,
    "ipc": partial(_read_namespace, words=("host", "none", "private", "shareable"), shared=True),
    "pid": partial(_read_namespace, words=("host",), shared=True),
    "uts": partial(_read_namespace, words=("host",)),
    "cgroup": partial(_read_namespace, words=("host", "private")),
    "cgroup_parent": Cursor.read_string,
    "userns_mode": partial(_read_namespace, words=("host",)),
    "runtime": Cursor.read_string,
    "storage_opt": values.read_strings_by_name,
    "devices": lambda at: at.read_items(_read_device),
    "device_cgroup_rules": Cursor.read_strings,
    "gpus": _read_gpus,
}
"""The reader of each key."""
