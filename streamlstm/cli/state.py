"""state: what the snapshots hold, and the reset of a stream."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamlstm.cli.options import config_options, file_of, load_cluster_config
from streamlstm.cli.outputs import Output, require_outputs
from streamlstm.cli.progress import progress_bar
from streamlstm.cli.table import aligned
from streamlstm.errors import BadDataError, InputMissingError, UsageError

if TYPE_CHECKING:
    from streamlstm.service.inspect_state import Found, Inspection, PartitionState


@click.group()
def state() -> None:
    """Look into the state of the streams, or reset one.

    Reads the snapshot topic beside the daemon: the state is as of the last snapshot of each chunk, up to
    snapshot.interval_ms old.
    """


@state.command("list")
@config_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per partition instead of the table.")
def list_(config_file: Path | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Say what is stored of each partition.

    Ends with 65 when a restart would find a problem with it.
    """
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.inspect_state import opened

    with opened(config) as inspection, progress_bar(inspection.total, "reading snapshots") as progress:
        found = inspection.overview(progress)
    for line in _as_json(found) if as_json else _as_table(found):
        click.echo(line)
    return BadDataError.exit_code if any(each.problems for each in found) else 0


@state.command()
@config_options
@click.argument("stream", metavar="KEY")
def get(config_file: Path | None, overrides: tuple[str, ...], stream: str) -> None:
    """Print a stream's state as JSON.

    One line for each partition that has it: n_seen, time, input and forecast of its last event, moments, and h and c
    of each layer or the window of inputs. It is the state after all events of the partition below `offset`.
    """
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.inspect_state import opened
    from streamlstm.service.stream_columns import json_rows

    with opened(config) as inspection:
        for found in _found(inspection, stream):
            (row,) = json_rows(inspection.columns(found))
            click.echo(_line({**_where(stream, found), **row}))


@state.command()
@config_options
@click.argument("path", metavar="FILE")
def export(config_file: Path | None, overrides: tuple[str, ...], path: str) -> None:
    """Write the state of all streams to FILE.

    A name in .npz is for NumPy: an array for each column, a row for each stream. Anything else gets JSON lines as of
    `state get`; - is standard output.
    """
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.export_state import write_arrays, write_lines
    from streamlstm.service.inspect_state import opened

    require_outputs([Output("FILE", path)], [("-c", file_of(config_file))])
    write = write_arrays if path.endswith(".npz") else write_lines
    with opened(config) as inspection, progress_bar(inspection.total, "exporting") as progress:
        count = write(path, inspection.export(progress))
    click.echo(f"{count:,} streams", err=True)


@state.command()
@config_options
@click.argument("stream", metavar="KEY")
@click.option(
    "--partition", type=click.IntRange(0), help="Its partition of the input.  [default: that of its snapshot]"
)
def reset(config_file: Path | None, overrides: tuple[str, ...], stream: str, partition: int | None) -> None:
    """Make a stream begin anew, by a tombstone in the input topic.

    The daemon forgets the stream when it comes to that record, a null value with the stream's key, and answers it with
    a dead letter: so the reset has its place among the events, for ever.
    """
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.inspect_state import opened

    with opened(config) as inspection:
        if partition is None:
            there = sorted({found.chunk.header.partition for found in _found(inspection, stream)})
            if len(there) > 1:
                raise UsageError(f"stream {stream!r} is in partitions {', '.join(map(str, there))}: say --partition")
            partition = there[0]
        offset = inspection.reset(stream, partition)
    click.echo(f"tombstone written: topic {config.input.topic}, partition {partition}, offset {offset}")


def _found(inspection: "Inspection", stream: str) -> "list[Found]":
    with progress_bar(inspection.total, "reading snapshots") as progress:
        found = inspection.find(stream, progress)
    if not found:
        raise InputMissingError(f"no snapshot has stream {stream!r}; a new stream is in none until its chunk is due")
    return found


def _where(stream: str, found: "Found") -> dict[str, Any]:
    header = found.chunk.header
    return {
        "stream": stream,
        "partition": header.partition,
        "chunk": found.leaf.key.decode(),
        "offset": header.offset,
        "model": header.model,
        "degraded": header.degraded,
    }


def _line(found: dict[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def _watermark(found: "PartitionState") -> int | None:
    """As of the newest chunk."""
    headers = [stored.header for stored in found.cover.chunks.values()]
    return max(headers, key=lambda header: header.offset).watermark if headers else None


def _models(found: "PartitionState") -> list[str]:
    return sorted({stored.header.model for stored in found.cover.chunks.values()})


def _degraded(found: "PartitionState") -> int:
    return sum(stored.header.degraded for stored in found.cover.chunks.values())


def _as_json(states: "list[PartitionState]") -> Iterator[str]:
    for found in states:
        tags = found.tags
        yield json.dumps(
            {
                "partition": found.partition,
                "chunks": len(tags),
                "streams": found.streams,
                "bytes": found.size,
                "oldest_offset": tags[0] if tags else None,
                "newest_offset": tags[-1] if tags else None,
                "committed": found.committed,
                "models": _models(found),
                "watermark": _watermark(found),
                "degraded_chunks": _degraded(found),
                "problems": [{"kind": each.kind, "message": each.message} for each in found.problems],
                "notes": found.notes,
            }
        )


def _as_table(states: "list[PartitionState]") -> Iterator[str]:
    """`to replay` is what a restart would have to read again."""
    names = [
        "partition",
        "chunks",
        "streams",
        "bytes",
        "oldest",
        "newest",
        "committed",
        "to replay",
        "watermark",
        "model",
    ]
    rows = []
    for found in states:
        tags, known = found.tags, found.committed is not None
        time_ms = _watermark(found)
        rows.append(
            [
                str(found.partition),
                f"{len(tags):,}" + (f" ({_degraded(found)} degraded)" if _degraded(found) else ""),
                f"{found.streams:,}",
                f"{found.size:,}",
                str(tags[0]) if tags else "-",
                str(tags[-1]) if tags else "-",
                str(found.committed) if known else "-",
                f"{max((found.committed or 0) - tags[0], 0):,}" if tags and known else "-",
                "-" if time_ms is None else _time(time_ms),
                ", ".join(model[:12] for model in _models(found)) or "-",
            ]
        )
    yield from aligned(names, rows)
    for found in states:
        yield from (f"problem: partition {found.partition}: {each.kind}: {each.message}" for each in found.problems)
        yield from (f"note: partition {found.partition}: {note}" for note in found.notes)
    yield f"{sum(found.streams for found in states):,} streams, {sum(found.size for found in states):,} bytes"


def _time(time_ms: int) -> str:
    """RFC 3339, in seconds."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
