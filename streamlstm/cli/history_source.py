"""Where a history comes from, as the command line says it: files, or the input topic."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import click

from streamlstm.cli.bounds import WHEN, bound
from streamlstm.cli.models import listed
from streamlstm.cli.options import options
from streamlstm.cli.progress import progress_bar
from streamlstm.errors import UsageError

if TYPE_CHECKING:
    from streamlstm.config import Config
    from streamlstm.history.history import History
    from streamlstm.service.audit_range import Bound

_OF_FILES = {"stream_column": "--stream-column", "time_column": "--time-column", "value_columns": "--value-columns"}
_SETTINGS = {
    "stream_column": "stream_field=NAME",
    "time_column": """time_fields='["NAME"]'""",
    "value_columns": """value_fields='["NAME"]', or input.values_field=NAME for several""",
}
_OF_TOPIC = {"last": "--last", "partitions": "--partition"}


@dataclass(frozen=True, slots=True)
class HistorySource:
    """What `source_options` and the argument `history` gave."""

    history: tuple[str, ...]
    stream_column: str | None
    time_column: str | None
    value_columns: tuple[str, ...]
    topic: bool
    start: "Bound"
    stop: "Bound"
    last: int | None
    partitions: tuple[int, ...]

    def require_one(self, begin: str, end: str) -> None:
        """Raises UsageError unless it's either files or a topic, without options that would be ignored; `begin` and
        `end` are what the options of its range are called.
        """
        if self.topic and self.history:
            raise UsageError("expected files or --topic, found both")
        if not (self.topic or self.history):
            raise UsageError("expected files, or --topic; found neither")
        for name, option in (_OF_FILES if self.topic else _OF_TOPIC).items():
            if getattr(self, name) not in (None, ()):
                raise UsageError(f"{option}: doesn't go with {'--topic' if self.topic else 'files'}")
        if not self.topic and (self.start.offsets or self.stop.offsets):
            raise UsageError(f"{begin}, {end}: expected a time, as files have no offsets")

    def files(self) -> list[tuple[str, str]]:
        """What there is to read, folders expanded, as cli.outputs wants it. Raises InputMissingError."""
        from streamlstm.history.files import sources_of
        from streamlstm.history.report import Report

        return [("FILE", source.path) for source in sources_of(self.history, Report())] if self.history else []

    def read(self, config: "Config", inputs: tuple[str, ...], order: Literal["time", "arrival"]) -> "History":
        """The history, after which what is to be said of it has been. Raises UsageError, and what the readers raise."""
        past = (self.read_topic if self.topic else self.read_files)(config, inputs, order)
        for line in past.report.lines():
            click.echo(line, err=True)
        return past

    def read_files(self, config: "Config", inputs: tuple[str, ...], order: Literal["time", "arrival"]) -> "History":
        """Raises UsageError, and what history.files raises."""
        from streamlstm.history.columns import Wanted
        from streamlstm.history.files import read_files, total_bytes
        from streamlstm.service.history_topic import rules_of
        from streamlstm.service.wiring import field_paths

        self._refuse_columns_of_lines()
        wanted = Wanted(field_paths(config, inputs), self.stream_column, self.time_column, self.value_columns)
        # a file has no record timestamps that its events could be ahead of, and no offsets
        rules = replace(
            rules_of(config, order), max_ahead_ms=None, keep_offsets=False, begin_ms=self.start.time_ms,
            end_ms=self.stop.time_ms,
        )  # fmt: skip
        with progress_bar(total_bytes(self.history), "reading") as progress:
            return read_files(self.history, wanted, rules, progress)

    def _refuse_columns_of_lines(self) -> None:
        """Where the fields of JSON stand is a matter of the configuration."""
        from streamlstm.history.files import format_of

        given = [name for name in _OF_FILES if getattr(self, name)]
        if not given:
            return
        lines = [path for _, path in self.files() if format_of(path) == "lines"]
        if lines:
            raise UsageError(
                f"{_OF_FILES[given[0]]}: expected a table; {lines[0]} is JSON lines, whose fields are "
                f"--set input.{_SETTINGS[given[0]]}"
            )

    def read_topic(self, config: "Config", inputs: tuple[str, ...], order: Literal["time", "arrival"]) -> "History":
        """The range of the input topic that was asked for, with a progress bar. Raises UsageError, and what the service
        raises (service.history_topic).
        """
        from streamlstm.service.history_topic import TopicRange, opened, rules_of

        asked = TopicRange(self.start, self.stop, self.last, self.partitions)
        with (
            opened(config, inputs, asked, rules_of(config, order)) as topic,
            progress_bar(topic.total, f"reading {config.input.topic}") as progress,
        ):
            return topic.read(progress)


def source_options(begin: str, end: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a HistorySource to a command; those of its range are called `begin` and `end`."""
    return options(
        click.option("--stream-column", help="Tables: that of the stream ids.  [default: found by its name]"),
        click.option("--time-column", help="Tables: that of the times.  [default: found by its name]"),
        click.option("--value-columns", callback=listed(str), metavar="A,B,..", help="Tables: that of each input."),
        click.option("--topic", is_flag=True, help="Read the input topic of the configuration instead of files."),
        click.option(
            begin, "start", callback=bound, metavar=WHEN, help="Events from here on; files: a time.  [default: all]"
        ),
        click.option(end, "stop", callback=bound, metavar=WHEN, help="Events before this."),
        click.option("--last", type=click.IntRange(1), help="Topic: so many records of each partition."),
        click.option(
            "--partition",
            "partitions",
            multiple=True,
            type=click.IntRange(0),
            help="Topic: only this; may be repeated.",
        ),
    )
