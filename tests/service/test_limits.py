"""Limits of memory and CPU as the kernel tells them to hosts, units and containers."""

from pathlib import Path

import pytest

from streamlstm.service import limits

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with 4 GiB, and no limits."""
    (tmp_path / "meminfo").write_text("MemTotal:        4194304 kB\nMemAvailable:    1048576 kB\n")
    monkeypatch.setattr(limits, "MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "HIERARCHY", tmp_path / "fs")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_cgroups(machine: Path) -> None:
    assert limits.memory_limit() == 4 << 30
    assert limits.memory("MemAvailable") == 1 << 30
    assert limits.cpu_quota() is None


def test_a_container_whose_root_is_its_own(machine: Path) -> None:
    write(machine / "cgroup", "0::/\n")
    write(machine / "fs/memory.max", "1000000000\n")
    write(machine / "fs/cpu.max", "150000 100000\n")
    assert limits.memory_limit() == GB
    assert limits.cpu_quota() == 1.5


def test_a_unit_in_a_slice(machine: Path) -> None:
    """systemd: the least of the unit's limits and of those around it."""
    write(machine / "cgroup", "0::/system.slice/streamlstm.service\n")
    write(machine / "fs/system.slice/memory.max", "2000000000\n")
    write(machine / "fs/system.slice/streamlstm.service/memory.max", "max\n")
    write(machine / "fs/system.slice/streamlstm.service/cpu.max", "50000 100000\n")
    write(machine / "fs/system.slice/cpu.max", "max 100000\n")
    assert limits.memory_limit() == 2 * GB
    assert limits.cpu_quota() == 0.5


def test_the_hierarchy_of_memory_in_v1(machine: Path) -> None:
    """In a container /proc names a path of the host's, and the limit is found at the root."""
    write(machine / "cgroup", "11:cpu,cpuacct:/docker/4f\n4:memory:/docker/4f\n0::/\n")
    write(machine / "fs/memory/memory.limit_in_bytes", "3000000000\n")
    assert limits.memory_limit() == 3 * GB
    write(machine / "fs/memory/memory.limit_in_bytes", "9223372036854771712\n")  # none
    assert limits.memory_limit() == 4 << 30


def test_a_cgroup_outside_the_namespace(machine: Path) -> None:
    write(machine / "cgroup", "0::/../other\n")
    write(machine / "fs/memory.max", "1000000000\n")
    assert limits.memory_limit() == GB


@pytest.mark.parametrize(("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None)])
def test_quotas(text: str, cores: float | None) -> None:
    assert limits.quota_of(text) == cores
