"""A progress bar for commands that read topics."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress_bar(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """What to tell how many of `total` have been done since the last time: a bar on a terminal, else nothing."""
    if not total or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(min(done, total - bar.pos))
