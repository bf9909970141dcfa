"""What a run of the trust suite has shown, as Markdown."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from tests.trust.faults import BROKER_BACK
from tests.trust.judge import Verdict
from tests.trust.stage import Stage


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for, and how long it took."""

    minutes: float
    seed: int
    rate: float
    streams: int
    members: int
    date: str
    brokers: int = 1
    model: str = "carry"
    settings: tuple[str, ...] = ()


def report(run: Run, stage: Stage, verdict: Verdict) -> str:
    return "\n\n".join(
        [
            "# Trust report",
            f"{run.date}, {run.minutes:.1f} minutes, seed {run.seed}: {run.members} members and guests, "
            f"{stage.partitions} partitions, {run.rate:.0f} events/s of {run.streams} streams, model {run.model}, "
            f"Kafka brokers: {run.brokers}, settings: {', '.join(run.settings) or 'the defaults'}.",
            "**Clean.**" if verdict.clean and not stage.complaints else "**NOT CLEAN.**",
            _verdict(verdict),
            _faults(stage),
            _points(stage),
            _requests(stage),
            _more(stage, verdict),
        ]
    )


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(map(str, row)) for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(verdict: Verdict) -> str:
    head = ("events", "forecasts", "dead letters", "lost", "duplicated", "reordered", "bytes differing")
    differing = verdict.differing if verdict.compared else "not compared"
    row = (
        verdict.events, verdict.forecasts, verdict.letters, verdict.lost, verdict.duplicated, verdict.reordered,
        differing,
    )  # fmt: skip
    return table(head, [row])


def _faults(stage: Stage) -> str:
    """Recovery: from the fault to the first committed answer to an event younger than it, per affected partition."""
    counts = Counter(fault.kind.partition(":")[0] for fault in stage.faults)
    seconds: dict[str, list[float]] = defaultdict(list)
    for recovery in stage.follower.recoveries:
        seconds[recovery.fault.kind.partition(":")[0]].append(recovery.seconds)
    head = ("fault", "times", "partitions affected", "recovery: median", "99 %", "longest")
    rows = [(kind, count, len(seconds[kind]), *_spread(seconds[kind])) for kind, count in sorted(counts.items())]
    counted = [recovery for recovery in stage.follower.recoveries if recovery.fault.kind != BROKER_BACK]
    total = counts.total() - counts[BROKER_BACK]
    rows.append(("all faults", total, len(counted), *_spread([recovery.seconds for recovery in counted])))
    text = (
        "Recovery is the time from a fault to the first committed answer to an event that is younger than the fault, "
    )
    return f"{text}for each partition affected; faults overlap.\n\n{table(head, rows)}"


def _spread(seconds: list[float]) -> tuple[str, str, str]:
    if not seconds:
        return "-", "-", "-"
    ordered = sorted(seconds)
    at_99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{median(ordered):.2f} s", f"{at_99:.2f} s", f"{ordered[-1]:.2f} s"


def _points(stage: Stage) -> str:
    kills = Counter(fault.point for fault in stage.faults if fault.kind == "kill at a point")
    zombies = Counter(fault.point for fault in stage.faults if fault.kind == "zombie")
    names = sorted(kills.keys() | zombies.keys())
    return table(("moment", "kill -9", "zombies"), [(name, kills[name], zombies[name]) for name in names])


def _requests(stage: Stage) -> str:
    harmed = [fault for fault in stage.faults if fault.kind.startswith("network")]
    if not harmed:
        return "No faults of the network."
    harms = sorted({fault.kind.partition(": ")[2] for fault in harmed})
    counts = Counter((fault.point, fault.kind.partition(": ")[2]) for fault in harmed)
    rows = [(name, *(counts[name, harm] for harm in harms)) for name in sorted({fault.point for fault in harmed})]
    return table(("request", *(harm.replace("_", " ") for harm in harms)), rows)


def _more(stage: Stage, verdict: Verdict) -> str:
    endings = ", ".join(f"{code}: {count}" for code, count in sorted(stage.endings.items()))
    lines = [f"Joins {stage.joins}, leaves {stage.leaves} of guests. Faults without an occasion: {stage.unreached}."]
    lines += [
        f"Exit codes of members: {endings}.",
        *stage.complaints,
        *stage.broker_faults,
        *(text[:2000] for text in verdict.examples),
    ]
    return "\n".join(f"- {line}" for line in lines)
