"""Read the keys of a service that go to the engine as they are: CPU sets, namespaces, devices.

Called by `meshd.spec.reader.service`; the values are in `meshd.spec.model.EngineOptions`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from meshd.spec import units
from meshd.spec.model import DeviceRequest
from meshd.spec.reader import values
from meshd.spec.source.cursor import Cursor, KeyTable, join_words

MAX_MICROSECONDS: Final = 1_000_000_000
"""The upper bound of a CPU period or quota; the kernel allows one second per core."""
MAX_SHARES: Final = 262_144
"""The kernel's upper bound of CPU shares."""
MAX_OOM_SCORE: Final = 1000
"""The kernel's bound of the adjustment, in both directions."""


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


def _read_namespace(at: Cursor, words: tuple[str, ...]) -> str:
    """Read a namespace; one of another service or container is not supported, because a replica
    may be replaced or run elsewhere."""
    text = at.read_string()
    if text.startswith(("service:", "container:")):
        at.fail(
            f"meshd does not support {text!r}, because replicas are replaced one by one; expected "
            f"{join_words(words)}"
        )
    return at.read_one_of(*words)


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
    return tuple(at.read_items(_read_gpu))


def _read_gpu(at: Cursor) -> DeviceRequest:
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
    request = DeviceRequest.model_validate(found)
    words = dict.fromkeys(("gpu", *request.capabilities))
    return request.model_copy(update={"capabilities": tuple(words)})


def _read_count(at: Cursor) -> int:
    return -1 if at.read_string() == "all" else at.read_integer(low=-1)


READERS: Final[Mapping[str, Callable[[Cursor], object]]] = {
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
    "ipc": partial(_read_namespace, words=("host", "none", "private", "shareable")),
    "pid": partial(_read_namespace, words=("host",)),
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
