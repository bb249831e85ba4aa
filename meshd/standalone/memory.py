"""What a helper of `meshd proxy` knows, kept in a memory file across its restarts.

The command makes the file before it becomes the supervisor, which passes it on to each helper
process (`ChildConfig.descriptors`). `meshd.standalone.helper` reads it at start and writes it after
each change.
"""

import os

import msgspec
import structlog

_log = structlog.stdlib.get_logger(__name__)


class HelperMemory(msgspec.Struct, frozen=True):
    """The state that the next helper continues with.

    - `resolved`: the last good addresses by host.
    - `unhealthy`: ids of the endpoints whose probes fail.
    - `settings`: the last good settings, as JSON; empty before the first write.
    """

    resolved: dict[str, tuple[str, ...]] = {}
    unhealthy: tuple[str, ...] = ()
    settings: str = ""


def create_memory_file() -> int:
    """Return the descriptor of a new memory file. It is inherited across exec."""
    return os.memfd_create("meshd-helper", 0)


def read_memory(descriptor: int) -> HelperMemory:
    """Return what the last helper wrote; an empty memory if there is none, or it is unreadable."""
    if descriptor < 0:
        return HelperMemory()
    try:
        size = os.fstat(descriptor).st_size
        return msgspec.json.decode(os.pread(descriptor, size, 0) or b"{}", type=HelperMemory)
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("memory of the helper before ignored", error=str(error))
        return HelperMemory()


def write_memory(descriptor: int, memory: HelperMemory) -> None:
    """Replace the content. A reader sees a part of it only if the writer is killed meanwhile; that
    is unreadable, and ignored."""
    if descriptor >= 0:
        data = msgspec.json.encode(memory)
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
