"""glibc's heap: kept in ordinary times, given back after trouble. Elsewhere than on glibc nothing happens."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8

_libc = ctypes.CDLL(None)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed buffers of up to 32 MiB: by default it unmaps them, and each transaction's record batches
    are then faulted in anew, page by page. One arena for all threads, so that what one frees the others use again. See
    mallopt(3).
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_ARENA_MAX, 1)
        _libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        _libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)


def give_back_freed_memory() -> None:
    """What is free now goes back to the kernel. A backlog takes more buffers than ordinary times, at places that differ
    each time: without this resident memory creeps up with every rebalance and broker fault. See malloc_trim(3).
    """
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
