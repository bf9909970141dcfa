"""What the engine finds out about each row of a batch."""

import numpy as np

from streamlstm.kernels.layout import Layout


class Columns:
    """Arrays of a row per event, grown by doubling, their contents kept.

    slot, owner (the partition's index), watermark, n_seen, gap, status: as kernels.observe writes them. filled [F]: the
    inputs as received, missing ones filled in. x [I], y [O] float32: of the network. y_base, y_scale, base [O]: the
    line that takes y to the forecast. yhat, lower, upper [O], score: what is emitted. `hollow` has one place more.
    """

    def __init__(self, layout: Layout) -> None:
        inputs, received, outputs = layout.inputs, layout.received or layout.inputs, layout.outputs
        self.capacity = 0
        self.slot = np.empty(0, np.int64)
        self.owner = np.empty(0, np.int64)
        self.watermark = np.empty(0, np.int64)
        self.n_seen = np.empty(0, np.int64)
        self.gap = np.empty(0, np.int64)
        self.status = np.empty(0, np.uint8)
        self.filled = np.zeros((0, received), np.float64)
        self.x = np.zeros((0, inputs), np.float32)
        self.y = np.zeros((0, outputs), np.float32)
        self.y_base = np.empty(0, np.float64)
        self.y_scale = np.empty(0, np.float64)
        self.yhat = np.zeros((0, outputs), np.float64)
        self.hollow = np.empty(1, np.int64)
        related, judged = outputs if layout.received else 0, outputs if layout.judge else 0
        self.base = np.zeros((0, related), np.float64)
        self.lower = np.zeros((0, judged), np.float64)
        self.upper = np.zeros((0, judged), np.float64)
        self.score = np.empty(0, np.float64)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows. May replace the arrays: take no views across it."""
        if rows <= self.capacity:
            return
        capacity = max(rows, 2 * self.capacity, 1024)
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                grown = np.zeros((capacity + (name == "hollow"), *column.shape[1:]), column.dtype)
                grown[: self.capacity] = column[: self.capacity]
                setattr(self, name, grown)
        self.capacity = capacity
