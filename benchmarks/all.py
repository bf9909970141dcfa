"""Every benchmark of speed, one after the other, and what they found in one place: `make bench`.

    .venv/bin/python benchmarks/all.py [--only kernel,end_to_end] [--quick] [--results benchmarks/results]

Writes to the results folder: DATE-COMMIT.json (machine, versions, commit, every figure with its spread; for
compare.py), DATE-COMMIT.md, and the plots. All of it takes about half an hour on a machine that should have nothing
else to do; `--quick` takes smaller sizes, to see that everything works: its figures mean nothing. A benchmark that
fails is named, and the command ends with 1 after the others. Peers are used where they are installed (extra `bench`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charts import draw
from figures import Figure, machine, read

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """One benchmark: its program, and the arguments it takes here. `quick`: those of a try."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()


PARTS = (
    Part("kernel", "kernel.py", (), ("--configs", "1-50-1-1", "--batches", "1,256", "--seconds", "0.2")),
    Part("decoding", "decoding.py", (), ("--rounds", "3")),
    Part("keys and printing", "keys_and_printing.py"),
    Part("judge", "judging.py", (), ("--rows", "20000", "--rounds", "3")),
    Part("training", "training.py", (), ("--configs", "1-50-1-1", "--threads", "1", "--seconds", "1")),
    Part("transactions", "transactions.py", (), ("--transactions", "20")),
    Part("end to end", "end_to_end.py", ("--rate", "0"), ("--events", "50000", "--runs", "1")),
    Part(
        "end to end judged", "end_to_end.py", ("--rate", "0", "--judged", "--peers", "torch,quixstreams"),
        ("--events", "50000", "--runs", "1"),
    ),
    Part(
        "end to end alone", "end_to_end.py",
        ("--rate", "0", "--per-batch", "1", "--events", "300000", "--peers", "torch"),
        ("--events", "50000", "--runs", "1"),
    ),
    Part("latency", "latency.py", (), ("--rates", "1000", "--seconds", "45")),
    Part("scaling", "scaling.py", (), ("--streams", "1000,10000", "--events", "50000", "--runs", "1")),
    Part("memory", "memory.py", (), ("--streams", "20000", "--events", "60000")),
    Part("start-up", "startup.py", (), ("--runs", "1")),
    Part(
        "recovery", "recovery.py", (),
        ("--streams", "20000", "--rate", "5000", "--interval", "10", "--seconds", "12"),
    ),
    Part("rebalance", "rebalance.py", (), ("--streams", "20000", "--rate", "2000", "--interval", "10")),
)  # fmt: skip


def run(part: Part, quick: bool, folder: Path) -> list[Figure] | None:
    """Its figures; None when it failed, and it has said why."""
    file = folder / f"{part.name}.json"
    command = [sys.executable, str(HERE / part.program), *part.arguments, *(part.quick if quick else ())]
    print(f"\n## {part.name}: {part.program} {' '.join(command[2:])}\n", flush=True)
    began = time.monotonic()
    done = subprocess.run([*command, "--json", str(file)], check=False)
    print(f"\n{time.monotonic() - began:.0f} s", flush=True)
    if done.returncode or not file.exists():
        return None
    return [replace(figure, benchmark=part.name) for figure in read(file)]


def markdown(about: dict[str, Any], figures: list[Figure], plots: Iterable[str]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    lines = [
        f"# Benchmarks of {about['date']}, commit {about['commit']}", "",
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; {about['system']}; "
        f"Python {about['python']}; {versions}. Load before: {about['load']}.", "",
    ]  # fmt: skip
    lines += [f"![{name}]({name})" for name in plots]
    for benchmark in dict.fromkeys(figure.benchmark for figure in figures):
        lines += ["", f"## {benchmark}", "", "| | at | median | least to greatest |", "|---|---|---|---|"]
        lines += [_row(figure) for figure in figures if figure.benchmark == benchmark]
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> str:
    at = "" if figure.at is None else f"{figure.at:,g}"
    spread = "" if figure.low is None else f"{figure.low:.4g} to {figure.high:.4g}"
    return f"| {figure.of} | {at} | {figure.value:.4g} {figure.unit} | {spread} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(part.name for part in PARTS), help="names of benchmarks")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - {part.name for part in PARTS}:
        parser.error(f"--only: no benchmark is named {', '.join(sorted(unknown))}")
    about = {**machine(), "date": time.strftime("%Y-%m-%d"), "load": round(os.getloadavg()[0], 2), "quick": given.quick}
    figures: list[Figure] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (part for part in PARTS if part.name in wanted):
            found = run(part, given.quick, Path(folder))
            figures += found or []
            if found is None:
                failed.append(part.name)
    given.results.mkdir(parents=True, exist_ok=True)
    stem = given.results / f"{about['date']}-{about['commit']}"
    content = {"machine": about, "failed": failed, "figures": [asdict(figure) for figure in figures]}
    Path(f"{stem}.json").write_text(json.dumps(content, indent=1) + "\n")
    plots = draw(figures, stem)
    Path(f"{stem}.md").write_text(markdown(about, figures, [plot.name for plot in plots]))
    print(f"\n{stem}.json, {stem}.md, {len(plots)} plots")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
