"""What this process may use of its machine: the limits of its container or unit, cgroups(7)."""

import re
from collections.abc import Iterator
from pathlib import Path

MEMORY_FILE = Path("/proc/meminfo")
OWN_CGROUPS = Path("/proc/self/cgroup")
HIERARCHY = Path("/sys/fs/cgroup")


def memory_limit() -> int:
    """Bytes of memory that this process may hope for: the least of its cgroups' limits and the machine's memory."""
    return min([memory("MemTotal"), *_limits()])


def cpu_quota() -> float | None:
    """Cores that this process may use up, the least of its cgroups' quotas; None without one."""
    quotas = [quota for text in _values("cpu", "cpu.max") if (quota := quota_of(text)) is not None]
    return min(quotas, default=None)


def quota_of(text: str) -> float | None:
    """Cores of a cpu.max of cgroup v2: "max 100000" or "150000 100000"; None without a limit."""
    found = re.fullmatch(r"(\d+) (\d+)\s*", text)
    return int(found[1]) / int(found[2]) if found else None


def memory(name: str) -> int:
    """Bytes of a line of /proc/meminfo."""
    line = next(line for line in MEMORY_FILE.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _limits() -> list[int]:
    texts = [*_values("memory", "memory.max"), *_values("memory", "memory.limit_in_bytes")]
    return [int(text) for text in texts if text.strip().isdigit()]


def _values(controller: str, name: str) -> Iterator[str]:
    """What the files of that name say, of the process' own cgroup and of those around it: v2, or v1's hierarchy of the
    controller. In a container the outer ones can't be seen, and the root is its own.
    """
    if not OWN_CGROUPS.exists():
        return
    for line in OWN_CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = HIERARCHY / controller if controllers else HIERARCHY
        folder = root / path.lstrip("/")
        for each in (folder, *folder.parents):
            if (each / name).is_file():
                yield (each / name).read_text()
            if each == root:
                break
