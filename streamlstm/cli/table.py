"""Tables for people."""

from collections.abc import Iterator, Sequence


def aligned(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table whose columns are aligned at the right, names first."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
