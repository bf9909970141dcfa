"""audit: whether every event has exactly one answer, in order."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamlstm.cli.bounds import WHEN, bound
from streamlstm.cli.options import config_options, load_cluster_config
from streamlstm.cli.progress import progress_bar
from streamlstm.cli.table import aligned

if TYPE_CHECKING:
    from streamlstm.service.account import Finding, Result
    from streamlstm.service.audit import Report
    from streamlstm.service.audit_range import Bound

SHOWN = 10
"""Findings of each kind that the table shows; --json has more."""


@click.command()
@config_options
@click.option("--from", "start", callback=bound, metavar=WHEN, help="Audit from here on.  [default: all there is]")
@click.option("--to", "stop", callback=bound, metavar=WHEN, help="Audit up to here.  [default: all committed]")
@click.option("--partition", "partitions", multiple=True, type=click.IntRange(0), help="Only this; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def audit(
    config_file: Path | None,
    overrides: tuple[str, ...],
    start: "Bound",
    stop: "Bound",
    partitions: tuple[int, ...],
    as_json: bool,
) -> int:
    """Prove that every event has exactly one answer, in order.

    Reads input, forecasts and dead letters as committed records, up to the offsets that the group has committed when
    it starts; the daemon may go on meanwhile. A time is a record's timestamp in the input: the range begins, or ends,
    at the first record at or after it.

    Ends with 0 when all is well; 65 when anything is missing, duplicate, reordered or foreign; 66 when retention has
    dropped the answers to what was asked for.
    """
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.audit import opened
    from streamlstm.service.audit_range import AuditOptions

    with (
        opened(config, AuditOptions(start, stop, partitions)) as running,
        progress_bar(running.total, "auditing") as progress,
    ):
        report = running.run(progress)
    click.echo(json.dumps(_as_json(report)) if as_json else "\n".join(_as_table(report)))
    return report.exit_code


# -------------------------------------------------------------------------------------------------------------- as JSON


def _as_json(report: "Report") -> dict[str, Any]:
    from streamlstm.service.account import Kind

    return {
        "clean": report.exit_code == 0,
        "group": report.group,
        "topics": {"input": report.input, "output": report.output, "dead_letter": report.dead_letters},
        **{kind.value: report.count(kind) for kind in Kind},
        "models": dict(report.models),
        "notes": report.notes,
        "partitions": [_partition_as_json(partition, each) for partition, each in report.partitions.items()],
    }


def _partition_as_json(partition: int, result: "Result") -> dict[str, Any]:
    return {
        "partition": partition,
        "first": result.first,
        "end": result.end,
        "events": result.events,
        "unreadable_batches": result.unreadable,
        "forecasts": result.forecasts,
        "dead_letters": result.dead_letters,
        **{kind.value: count for kind, count in result.counts.items()},
        "not_checkable": result.unchecked,
        "checked_from": result.checked_from,
        "others": result.others,
        "findings": [_finding_as_json(each) for each in result.findings],
    }


def _finding_as_json(finding: "Finding") -> dict[str, Any]:
    event = {} if finding.offset < 0 else {"event": finding.offset}
    answer = {"topic": finding.topic, "offset": finding.at} if finding.topic else {}
    return {"kind": finding.kind.value, **event, **answer, **({"why": finding.why} if finding.why else {})}


# ------------------------------------------------------------------------------------------------------------- as table


def _as_table(report: "Report") -> Iterator[str]:
    from streamlstm.service.account import Kind

    kinds = [kind for kind in Kind if kind is not Kind.UNREADABLE or report.count(kind)]
    names = ["partition", "offsets", "events", "forecasts", "dead letters", *kinds, "not checkable"]
    rows = [
        [
            str(partition),
            f"{each.first}..{each.end}",
            *map("{:,}".format, (each.events + each.unreadable, each.forecasts, each.dead_letters)),
            *(f"{each.counts[kind]:,}" for kind in kinds),
            f"{each.unchecked:,}",
        ]
        for partition, each in report.partitions.items()
    ]
    yield from aligned(names, rows)
    for kind in kinds:
        yield from _findings(report, kind)
    yield from (f"note: {note}" for note in report.notes)
    yield _verdict(report)


def _findings(report: "Report", kind: str) -> Iterator[str]:
    found = [
        (partition, each)
        for partition, result in report.partitions.items()
        for each in result.findings
        if each.kind == kind
    ]
    for partition, each in found[:SHOWN]:
        yield f"{kind}: {_sentence(report, partition, each)}"
    count = report.count(found[0][1].kind) if found else 0
    if count > SHOWN:
        yield f"{kind}: and {count - SHOWN:,} more"


def _sentence(report: "Report", partition: int, finding: "Finding") -> str:
    parts = [f"event {report.input} {partition}:{finding.offset}"] if finding.offset >= 0 else []
    parts += [f"answer {finding.topic} {partition}:{finding.at}"] if finding.topic else []
    parts += [finding.why] if finding.why else []
    return ", ".join(parts)


def _verdict(report: "Report") -> str:
    from streamlstm.service.account import Kind

    results = report.partitions.values()
    if report.faults:
        wrong = ", ".join(f"{report.count(kind):,} {kind}" for kind in Kind if report.count(kind))
        return f"NOT CLEAN: {wrong}"
    events = sum(each.events + each.unreadable for each in results)
    unchecked = sum(each.unchecked for each in results)
    answered = f"{events - unchecked:,} events, each with exactly one answer, in order"
    return f"{'clean' if report.exit_code == 0 else 'NOT PROVEN'}: {answered}" + (
        f"; {unchecked:,} more whose answers retention may have dropped" if unchecked else ""
    )
