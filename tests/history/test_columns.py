"""Which columns are taken for what."""

import pytest

from streamlstm.errors import BadDataError
from streamlstm.events.fields import FieldPaths
from streamlstm.history.columns import Chosen, Content, Wanted, choose

CONTENTS = {"t": Content.TIME, "n": Content.NUMBER, "x": Content.TEXT, "e": Content.EMPTY, "o": Content.OTHER}


def chosen(header: str, contents: str, inputs: tuple[str, ...] = ("value",)) -> Chosen:
    wanted = Wanted(FieldPaths(inputs=inputs))
    return choose(header.split(","), [CONTENTS[each] for each in contents], wanted, "f.csv", lambda column: range(9))


@pytest.mark.parametrize(
    ("header", "contents", "time", "stream", "values", "wide", "notes"),
    [
        ("unique_id,ds,y", "xtn", 1, 0, (2,), False, 0),
        ("Time , VALUE", "nn", 0, None, (1,), False, 0),
        ("value,ts", "ee", 1, None, (0,), False, 0),  # a name counts for more than what is there
        ("when,load", "tn", 0, None, (1,), False, 2),
        ("load,when", "nt", 1, None, (0,), False, 2),
        ("a,b", "nn", 0, None, (1,), False, 2),
        ("ts,load,comment", "nnx", 0, 2, (1,), False, 2),
        ("k,ts,value", "xnn", 1, 0, (2,), False, 1),
        ("ts,value,a,b", "nnxx", 0, None, (1,), False, 1),  # more columns of text: none of them is the stream
        ("id,ts,load", "nnn", 1, 0, (2,), False, 1),
        ("date,a,b,c", "tnnn", 0, None, (1, 2, 3), True, 1),
        ("date,a,b,c,why", "tnnnx", 0, None, (1, 2, 3), True, 2),
        ("ts,a,b,c", "tenn", 0, None, (1, 2, 3), True, 1),  # a sensor that is installed later
        ("ts,a,b,c", "tnee", 0, None, (1, 2, 3), True, 1),
        ("ts,sensor,a,c", "txne", 0, None, (2,), False, 3),  # rather one value, of streams that text may name
        ("ts,a,,", "tnee", 0, None, (1,), False, 2),  # commas at the end of each row
        ("ts,a,b,x,x", "tnnee", 0, None, (1, 2), True, 2),
        ("id,ts,a,b", "xtne", 1, 0, (2,), False, 2),
        ("a,value,b", "nnx", 0, 2, (1,), False, 2),
    ],
)
def test_choice(
    header: str, contents: str, time: int, stream: int | None, values: tuple[int, ...], wide: bool, notes: int
) -> None:
    found = chosen(header, contents)
    assert (found.time, found.stream, found.values, found.wide) == (time, stream, values, wide)
    assert len(found.notes) == notes


def test_columns_that_are_left_out_are_named() -> None:
    assert chosen("ts,a,b,c,why,who", "tnenxo").notes == (
        "f.csv: each of 3 columns of numbers (1 empty at first) was taken for a stream",
        "f.csv: columns left out: why, who",
    )


def test_inputs_by_name() -> None:
    assert chosen("ts,temp,load,more", "tnnn", ("load", "temp")).values == (2, 1)
    with pytest.raises(BadDataError, match=r"f\.csv: expected a column for each input \(load, temp\), found ts, load"):
        chosen("ts,load", "tn", ("load", "temp"))


@pytest.mark.parametrize(
    ("header", "contents", "problem"),
    [
        ("a,b,c,d", "nnnn", "expected a column of times"),
        ("a,b", "tt", "expected a column of times"),  # which of the two?
        ("ts,a", "tx", "no other column of numbers"),
        ("id,ts,a,b", "xtnn", "several columns of numbers: name one"),
        ("ts,ts,value", "ttn", "expected one column 'ts', found more"),
        ("", "e", "found ''"),
        (",".join(f"c{i}" for i in range(99)), "x" * 99, "c11 and 87 more"),
    ],
)
def test_no_choice(header: str, contents: str, problem: str) -> None:
    with pytest.raises(BadDataError, match=problem):
        chosen(header, contents)
