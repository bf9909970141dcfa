"""Numbers of the command line: finite ones."""

from math import isfinite
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """click takes nan for within any bounds, as it is on neither side of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"expected a finite number, found {number}", param, ctx)
        return number


def finite(text: str) -> float:
    """Raises ValueError."""
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number
