"""The curves of a training: live on a terminal, as lines elsewhere, and as a picture."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from streamlstm.errors import UsageError

if TYPE_CHECKING:
    from streamlstm.training.auto import Advance
    from streamlstm.training.fit import Look

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60


class Curves(Protocol):
    """`advance` hears of every step; `say` prints a line."""

    def advance(self, event: "Advance") -> None: ...

    def say(self, line: str) -> None: ...


@contextmanager
def curves() -> Iterator[Curves]:
    """Live where standard error is a terminal and rich is there."""
    if not (sys.stderr.isatty() and importlib.util.find_spec("rich")):
        yield _Lines()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield _Live(live)


class _Lines:
    def say(self, line: str) -> None:
        click.echo(line, err=True)

    def advance(self, event: "Advance") -> None:
        if event.look is not None:
            self.say(f"{_stage(event.stage)}, step {event.step} of at most {event.steps}: {told(event.look)}")


class _Live:
    def __init__(self, live: Any) -> None:
        self._live = live
        self._looks: dict[str, list[Look]] = {}

    def say(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False)

    def advance(self, event: "Advance") -> None:
        from rich.text import Text

        looks = self._looks.setdefault(event.stage, [])
        if event.look is not None:
            looks.append(event.look)
        lines = [f"{_stage(event.stage)}, step {event.step} of at most {event.steps}"]
        if looks:
            lines[0] += f": {told(looks[-1])}"
            lines.append(f"  loss  {sparkline([look.loss for look in looks])}")
            tails = [look.tail for look in looks if look.tail is not None]
            lines += [f"  tail  {sparkline(tails)}"] if tails else []
        self._live.update(Text("\n".join(lines)))


def told(look: "Look") -> str:
    """loss 0.61234, tail 0.364 of repeating the last value"""
    from math import exp

    text = f"loss {look.loss:.5f}"
    return text if look.tail is None else f"{text}, tail {exp(look.tail):.4f} of repeating the last value"


def sparkline(values: list[float]) -> str:
    """The newest values, from the smallest to the largest of them."""
    values = values[-_WIDTH:]
    low, high = min(values), max(values)
    extent = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / extent * (len(_BARS) - 1))] for value in values)


def _stage(stage: str) -> str:
    from streamlstm.training.auto import TAIL

    return "network" if stage == TAIL else "network on everything"


def require_plot(path: Path) -> None:
    """Before hours of training: raises UsageError where there is no matplotlib, or it doesn't know such a picture."""
    if not importlib.util.find_spec("matplotlib"):
        raise UsageError("--plot needs matplotlib: install streamlstm[train]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = sorted(set(FigureCanvasAgg.get_supported_filetypes()) - {"pgf"})  # that one needs LaTeX
    if path.suffix[1:].lower() not in known:
        raise UsageError(
            f"--plot {path}: expected a name ending in .{', .'.join(known)}; found {path.suffix or 'none'}"
        )


def save_plot(looks: dict[str, list["Look"]], linear: float | None, path: Path) -> None:
    """Loss and tail by step, one panel each. linear: the tail's score without a network."""
    from math import exp

    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    for stage, own in looks.items():
        above.plot([look.step for look in own], [look.loss for look in own], label=_stage(stage))
    tails = [(look.step, exp(look.tail)) for own in looks.values() for look in own if look.tail is not None]
    below.plot([step for step, _ in tails], [tail for _, tail in tails], label="with the network")
    if linear is not None:
        below.axhline(exp(linear), color="gray", linestyle="--", label="without")
    above.set_ylabel("loss (mean absolute error)")
    below.set_ylabel("tail, MAE over naive")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.legend()
    figure.savefig(path)
    pyplot.close(figure)
