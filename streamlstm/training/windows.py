"""Windows over rows of many streams: T successive rows, and the value of the row that follows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Windows:
    """W windows of T rows. They are cut out when they are asked for, so memory goes by the rows and not by W x T.

    x: [N, I], scaled, all streams one after the other. following: int64 [W], the row after each window. target: the
    column that is forecast.
    """

    x: Reals
    following: NDArray[np.int64]
    length: int
    target: int = 0

    def __len__(self) -> int:
        return len(self.following)

    def cut(self, chosen: NDArray[np.int64]) -> tuple[Reals, Reals]:
        """x [B, T, I] and y [B, 1] of those windows."""
        following = self.following[chosen]
        rows = following[:, None] + np.arange(-self.length, 0)
        return self.x[rows], self.x[following, self.target][:, None]

    def batches(self, order: NDArray[np.int64], size: int) -> Iterator[tuple[Reals, Reals]]:
        """All windows in that order, `size` at a time; the last batch may be smaller."""
        for first in range(0, len(order), size):
            yield self.cut(order[first : first + size])


def rows_to_forecast(
    start: NDArray[np.int64], begin: NDArray[np.int64], stop: NDArray[np.int64], length: int
) -> NDArray[np.int64]:
    """Rows of [begin[s], stop[s]) of each stream s with at least `length` rows of their own stream before them, which
    begins at start[s]. Each int64 [S].
    """
    first = np.maximum(begin, start + length)
    spans = [np.arange(a, b) for a, b in zip(first.tolist(), stop.tolist(), strict=True) if a < b]
    return np.concatenate(spans) if spans else np.empty(0, np.int64)
