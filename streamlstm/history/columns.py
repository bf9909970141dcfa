"""Which columns of a table are the stream, the time and the inputs: by the names that were asked for, by the default
names, else by what is in them where that leaves no choice. What was taken for granted is a note.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from streamlstm.errors import BadDataError, UsageError
from streamlstm.events.fields import FieldPaths
from streamlstm.history.report import shown

STREAM_COLUMNS = ("stream", "unique_id", "series", "id", "key")
TIME_COLUMNS = ("ts", "timestamp", "time", "ds", "date", "datetime")
VALUE_COLUMNS = ("value", "target", "y")

MOST_NAMED = 12


class Content(Enum):
    """What the first rows of a column hold, for the most part."""

    TIME = auto()
    NUMBER = auto()
    TEXT = auto()
    EMPTY = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where things are to be looked for. `fields` says it for JSON; of a table, `stream`, `time` and `values` (as many
    as `fields.inputs`) name columns, and what isn't named is looked for under the names of `fields` and the usual ones.
    `delimiter` is that of CSV; None: a tab in .tsv, else what the header has.
    """

    fields: FieldPaths
    stream: str | None = None
    time: str | None = None
    values: tuple[str, ...] = ()
    delimiter: str | None = None

    def __post_init__(self) -> None:
        if self.values and len(self.values) != len(self.fields.inputs):
            raise UsageError(
                f"value columns: expected {len(self.fields.inputs)}, one for each input of "
                f"{', '.join(self.fields.inputs)}; found {', '.join(self.values)}"
            )


@dataclass(frozen=True, slots=True)
class Chosen:
    """Places of columns. `stream` None: the file is one stream, named after it; but with `wide`, each of the `values`
    is a stream, named after the column.
    """

    time: int
    stream: int | None
    values: tuple[int, ...]
    wide: bool
    notes: tuple[str, ...]


def choose(
    names: Sequence[str],
    contents: Sequence[Content],
    wanted: Wanted,
    where: str,
    cells: Callable[[int], Sequence[object]],
) -> Chosen:
    """`cells` gives the first ones of a column.

    Raises UsageError for a column that was asked for and isn't there, BadDataError where the choice isn't clear.
    """
    return _Choice(names, contents, wanted, where).choose(cells)


def usual_names(wanted: Wanted) -> set[str]:
    """The names under which columns are looked for, in small letters."""
    fields = wanted.fields
    asked = [each for each in (wanted.stream, wanted.time, *wanted.values) if each is not None]
    of_fields = (*fields.stream, *fields.time, *fields.value, *fields.inputs)
    return {name.lower() for name in (*asked, *of_fields, *STREAM_COLUMNS, *TIME_COLUMNS, *VALUE_COLUMNS)}


def _tells_apart(texts: Sequence[object], times: Sequence[object]) -> bool:
    """Whether a column of text may say whose the rows are: by itself it leaves far fewer of one time."""
    return 2 * len(set(zip(texts, times, strict=True))) >= 3 * len(set(times))


class _Choice:
    def __init__(self, names: Sequence[str], contents: Sequence[Content], wanted: Wanted, where: str) -> None:
        self.names = [name.strip() for name in names]
        self.lower = [name.lower() for name in self.names]
        self.contents = contents
        self.wanted = wanted
        self.where = where
        self.notes: list[str] = []
        self.taken: set[int] = set()

    def choose(self, cells: Callable[[int], Sequence[object]]) -> Chosen:
        fields, wanted = self.wanted.fields, self.wanted
        time = self._named(wanted.time, (*fields.time, *TIME_COLUMNS))
        stream = self._named(wanted.stream, (*fields.stream, *STREAM_COLUMNS))
        values = self._values_by_name()
        if time is None:
            time = self._time_by_content(values)
        wide, by_content = False, not values
        if by_content:
            values, wide = self._values_by_content(stream)
        if stream is None and not wide and len(self.names) == 3:
            stream = self._only(Content.TEXT, "the stream")
        if stream is None and not wide and len(self.taken) < len(self.names):
            self._take_for_one_stream(time, cells)
        left = [i for i in range(len(self.names)) if i not in self.taken and self.names[i]]
        if by_content and left:
            self.notes.append(f"{self.where}: columns left out: {self._listed(left)}")
        return Chosen(time, stream, values, wide, tuple(self.notes))

    def _take_for_one_stream(self, time: int, cells: Callable[[int], Sequence[object]]) -> None:
        """Say so; or refuse, where a time is there twice, on average, and a column of text may say whose they are."""
        usual = ", ".join(dict.fromkeys((*self.wanted.fields.stream, *STREAM_COLUMNS)))
        times = cells(time)
        left = self._left(Content.TEXT) if 2 * len(set(times)) <= len(times) else []
        texts = [shown(self.names[i]) for i in left if _tells_apart(cells(i), times)]
        if texts:
            raise BadDataError(
                f"{self.where}: expected a column of streams ({usual}), as most times are there more than once; found "
                f"{self._listed()}: is it --stream-column {' or '.join(texts[:MOST_NAMED])}?"
            )
        self.notes.append(
            f"{self.where}: no column of streams ({usual}): all rows were taken for one stream, named after the file; "
            f"--stream-column names one"
        )

    # ---------------------------------------------------------------------------------------------------------- by name

    def _named(self, asked: str | None, usual: Sequence[str]) -> int | None:
        if asked is not None:
            return self._asked(asked)
        for name in usual:
            if name.lower() in self.lower:
                return self._take(self.lower.index(name.lower()))
        return None

    def _asked(self, name: str) -> int:
        if name in self.names:
            return self._take(self.names.index(name))
        if name.lower() in self.lower:
            return self._take(self.lower.index(name.lower()))
        raise UsageError(f"{self.where}: expected a column {shown(name)!r}, as asked for; found {self._listed()}")

    def _take(self, column: int) -> int:
        if self.names.count(self.names[column]) > 1:
            raise BadDataError(f"{self.where}: expected one column {shown(self.names[column])!r}, found more")
        self.taken.add(column)
        return column

    def _values_by_name(self) -> tuple[int, ...]:
        inputs = self.wanted.fields.inputs
        if self.wanted.values:
            return tuple(self._asked(name) for name in self.wanted.values)
        if all(name in self.names for name in inputs):
            return tuple(self._take(self.names.index(name)) for name in inputs)
        if len(inputs) > 1:
            raise BadDataError(
                f"{self.where}: expected a column for each input ({', '.join(inputs)}), found {self._listed()}"
            )
        found = self._named(None, (*self.wanted.fields.value, *VALUE_COLUMNS))
        return () if found is None else (found,)

    # ------------------------------------------------------------------------------------------------------- by content

    def _left(self, content: Content) -> list[int]:
        return [i for i, each in enumerate(self.contents) if each is content and i not in self.taken]

    def _only(self, content: Content, use: str) -> int | None:
        """The only column of this content that is left."""
        left = self._left(content)
        if len(left) != 1:
            return None
        self.notes.append(f"{self.where}: column {shown(self.names[left[0]])} was taken for {use}")
        return self._take(left[0])

    def _time_by_content(self, values: tuple[int, ...]) -> int:
        time = self._only(Content.TIME, "the time")
        if time is not None:
            return time
        numbers = self._left(Content.NUMBER)
        if len(self.names) <= 3 and not self._left(Content.TIME) and len(numbers) == (1 if values else 2):
            self.notes.append(f"{self.where}: column {shown(self.names[numbers[0]])} was taken for the time")
            return self._take(numbers[0])
        usual = ", ".join(dict.fromkeys((*self.wanted.fields.time, *TIME_COLUMNS)))
        raise BadDataError(f"{self.where}: expected a column of times ({usual}), found {self._listed()}")

    def _values_by_content(self, stream: int | None) -> tuple[tuple[int, ...], bool]:
        numbers = self._left(Content.NUMBER)
        later = [i for i in self._left(Content.EMPTY) if self.names[i] and self.names.count(self.names[i]) == 1]
        several = len(numbers) > 1 or (numbers and later and not self._left(Content.TEXT))  # text may say whose rows
        if several and stream is None:
            numbers = sorted(numbers + later)
            empty = f" ({len(later):,} empty at first)" if later else ""  # a sensor installed after the others
            self.notes.append(
                f"{self.where}: each of {len(numbers):,} columns of numbers{empty} was taken for a stream"
            )
            return tuple(map(self._take, numbers)), True
        value = self._only(Content.NUMBER, "the value")
        if value is not None:
            return (value,), False
        usual = ", ".join(dict.fromkeys((*self.wanted.fields.value, *VALUE_COLUMNS)))
        problem = "several columns of numbers: name one" if numbers else "no other column of numbers"
        raise BadDataError(f"{self.where}: expected a column of values ({usual}), found {self._listed()}; {problem}")

    def _listed(self, columns: Sequence[int] | None = None) -> str:
        """The names of some columns, or of all."""
        names = self.names if columns is None else [self.names[i] for i in columns]
        named = [shown(name) or "''" for name in names[:MOST_NAMED]]
        more = len(names) - len(named)
        return ", ".join(named) + (f" and {more:,} more" if more > 0 else "") if named else "none"
