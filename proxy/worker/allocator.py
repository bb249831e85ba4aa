"""The C library's allocator: memory of bodies is kept for the next ones.

By default glibc returns free memory at the end of the heap to the kernel as soon as there are 128
KiB. A worker that passes bodies on frees and takes that much all the time. So the kernel would take
and clear the same pages for each body.
"""

import ctypes
from typing import Final

KEPT: Final = 4 * 1024 * 1024
"""Bytes of free memory at the end of the heap that are not returned to the kernel."""
LARGE: Final = 1024 * 1024
"""Bytes from which a block is taken from the kernel, and returned to it, by itself. The pieces that
the event loop reads are smaller."""
_TRIM_THRESHOLD: Final = -1
"""M_TRIM_THRESHOLD (malloc.h)."""
_MMAP_THRESHOLD: Final = -3
"""M_MMAP_THRESHOLD (malloc.h)."""


def keep_freed_memory() -> bool:
    """Set the limits above for this process. Return whether that is done: other C libraries have no
    such limits."""
    set_limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_limit is None:
        return False
    return bool(set_limit(_TRIM_THRESHOLD, KEPT) and set_limit(_MMAP_THRESHOLD, LARGE))
