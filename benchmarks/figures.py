"""What a benchmark found, as figures that another run can be held to.

Each benchmark writes a list of them with `--json FILE`; all.py gathers the files, draws and prints them, compare.py
holds one run to another.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Better = Literal["lower", "higher", "neither"]
PACKAGES = (
    "streamlstm", "numpy", "numba", "llvmlite", "kafka-python", "confluent-kafka", "orjson", "torch", "onnxruntime",
    "tensorflow", "quixstreams", "river", "deep-river",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One number. `of` says what was measured, `at` where on an axis (batch size, streams, rate; None: no axis).

    `value` is the median of the runs, `low` and `high` are the least and the greatest of them. `better` tells
    compare.py which way is worse; a fact that is neither isn't compared.
    """

    of: str
    value: float
    unit: str
    better: Better = "lower"
    at: float | None = None
    low: float | None = None
    high: float | None = None
    benchmark: str = ""

    @property
    def key(self) -> tuple[str, str, float | None, str]:
        return self.benchmark, self.of, self.at, self.unit


def median(of: str, values: Sequence[float], unit: str, better: Better = "lower", at: float | None = None) -> Figure:
    """The median of several runs, with their spread."""
    return Figure(of, statistics.median(values), unit, better, at, min(values), max(values))


def write(path: Path | None, figures: Iterable[Figure]) -> None:
    """Write a benchmark's figures; without a path nothing happens."""
    if path is not None:
        path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def read(path: Path, benchmark: str = "") -> list[Figure]:
    """The figures of one benchmark's file, or of a whole run's."""
    content = json.loads(path.read_text())
    rows = content["figures"] if isinstance(content, dict) else content
    found = [Figure(**row) for row in rows]
    return [replace(figure, benchmark=benchmark) for figure in found] if benchmark else found


def machine() -> dict[str, Any]:
    """Where and of what: processor, cores, memory, system, versions, commit."""
    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "MemTotal: 0 kB")
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory.split()[1]) / 1e6, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "commit": commit or "unknown",
    }


def _versions() -> Iterable[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return []
