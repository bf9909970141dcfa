"""Where an event's stream, time and inputs stand in a JSON value."""

from dataclasses import dataclass
from typing import Literal, get_args

from streamlstm.errors import ConfigError

TimeUnit = Literal["s", "ms", "us", "ns"]
StreamSource = Literal["auto", "key", "field"]

DEFAULT_STREAM = ("stream",)
DEFAULT_TIME = ("ts", "timestamp", "time", "ds")
DEFAULT_VALUE = ("value", "target", "y")


@dataclass(frozen=True, slots=True)
class FieldPaths:
    """Paths into the JSON object of an event; a dot leads into a nested object, as in `payload.temp`.

    Of several paths the first that the object has is read. `inputs` are the model's inputs in its order: with one, its
    number stands at a `value` path or in `values`; with several, all stand in `values`, as an array or by name.
    `time_unit` is that of numeric times. `stream_source`: "key" takes the record's key, "field" a `stream` path, "auto"
    the field where there is one, else the key. Raises ConfigError, naming every part that makes no sense.
    """

    stream: tuple[str, ...] = DEFAULT_STREAM
    time: tuple[str, ...] = DEFAULT_TIME
    value: tuple[str, ...] = DEFAULT_VALUE
    values: str = "values"
    inputs: tuple[str, ...] = ("value",)
    time_unit: TimeUnit = "ms"
    stream_source: StreamSource = "auto"

    def __post_init__(self) -> None:
        problems = [
            f"field path {path!r}: expected names joined by single dots"
            for path in (*self.stream, *self.time, *self.value, self.values)
            if "" in path.split(".")
        ]
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            problems.append(f"inputs: expected one or more different names, found {', '.join(self.inputs) or 'none'}")
        if self.time_unit not in get_args(TimeUnit):
            problems.append(f"time unit: expected {', '.join(get_args(TimeUnit))}, found {self.time_unit!r}")
        if self.stream_source not in get_args(StreamSource):
            problems.append(
                f"stream source: expected {', '.join(get_args(StreamSource))}, found {self.stream_source!r}"
            )
        if problems:
            raise ConfigError(problems)


def split_path(path: str) -> tuple[str, ...]:
    """The names that lead to a field, outermost first."""
    return tuple(path.split("."))
