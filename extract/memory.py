"""Memory that this process has freed: kept for the next forward pass, rather than given back to the system."""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # of mallopt(3)
_LARGEST = 2**31 - 1  # what mallopt can be told


@cache
def keep_freed_memory() -> bool:
    """Let the allocator of the C library keep large blocks that were freed, and tell whether it does.

    Left alone it maps each block of more than 32 MiB anew, and gives the end of its heap back. A forward pass on a CPU
    makes and frees hundreds of megabytes of activations, so the system had to find and clear every page of them again
    in every pass: a fifth of the time of an EfficientNet-B2. The price is that the process stays as large as it once
    was; what a single block of 1 GiB or more takes is still given back.

    Does nothing where the C library is not the GNU one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # Older releases refuse such a threshold; to those, no block is large.
    mapped_less = mallopt(_MMAP_THRESHOLD, 1 << 30) or mallopt(_MMAP_MAX, 0)
    # The arenas that threads get of their own take no block of 64 MiB.
    return bool(mapped_less and mallopt(_TRIM_THRESHOLD, _LARGEST) and mallopt(_ARENA_MAX, 1))
