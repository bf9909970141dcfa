"""Hold one run of the benchmarks to another: what became better, what became worse. Ends with 1 when something did.

    .venv/bin/python benchmarks/compare.py BEFORE.json AFTER.json [--tolerance 0.10] [--all]

The files are those of all.py, of the same machine: figures of two machines say nothing about two versions. A figure is
worse when its median is by more than `tolerance`, and its best run is worse than the other's median too, so that a
single slow run doesn't count. What only one of the two has is listed.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, read


@dataclass(frozen=True)
class Change:
    """`ratio`: how many times as bad, above 1 worse, whichever way is better for this figure."""

    before: Figure
    after: Figure

    @property
    def ratio(self) -> float:
        if self.before.value == self.after.value:
            return 1.0
        old, new = self.before.value, self.after.value
        top, bottom = (new, old) if self.before.better == "lower" else (old, new)
        return top / bottom if bottom else float("inf")

    def is_worse(self, tolerance: float) -> bool:
        best = self.after.low if self.before.better == "lower" else self.after.high
        best = self.after.value if best is None else best
        loses = best > self.before.value if self.before.better == "lower" else best < self.before.value
        return self.ratio > 1 + tolerance and loses


def changes(before: list[Figure], after: list[Figure]) -> list[Change]:
    """What both have and can be better or worse, in the order of `after`."""
    known = {figure.key: figure for figure in before}
    both = [(known[figure.key], figure) for figure in after if figure.key in known]
    return [Change(old, new) for old, new in both if old.better != "neither"]


def line(change: Change, tolerance: float) -> str:
    new, old = change.after, change.before
    verdict = "WORSE" if change.is_worse(tolerance) else "better" if change.ratio < 1 - tolerance else ""
    at = "" if new.at is None else f" at {new.at:,g}"
    name, figures = f"{new.benchmark}: {new.of}{at}", f"{old.value:.4g} | {new.value:.4g} {new.unit}"
    return f"| {name} | {figures} | {change.ratio:.2f} | {verdict} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.10, help="%(default)s")
    parser.add_argument("--all", action="store_true", help="list what has hardly changed too")
    given = parser.parse_args()
    machines = [json.loads(path.read_text())["machine"] for path in (given.before, given.after)]
    if machines[0]["cpu"] != machines[1]["cpu"]:
        sys.exit(f"two machines can't be compared: {machines[0]['cpu']} and {machines[1]['cpu']}")
    before, after = read(given.before), read(given.after)
    found = changes(before, after)
    worse = [change for change in found if change.is_worse(given.tolerance)]
    shown = [change for change in found if given.all or abs(change.ratio - 1) > given.tolerance]
    print(f"{machines[0]['commit']} before, {machines[1]['commit']} after; {machines[0]['cpu']}\n")
    print("| figure | before | after | times as bad | |\n|---|---|---|---|---|")
    print("\n".join(line(change, given.tolerance) for change in shown))
    for name, one, other in (("before", before, after), ("after", after, before)):
        alone = {figure.key for figure in one} - {figure.key for figure in other}
        if alone:
            print(f"\nonly {name}: " + "; ".join(sorted({f"{key[0]}: {key[1]}" for key in alone})))
    print(f"\n{len(found)} figures compared, {len(worse)} worse by more than {given.tolerance:.0%}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
