"""The backend on a CUDA device: h, c and rings there, the rest of each row on the host.

A step needs nothing but the state, so nothing but inputs and outputs travels for each event. What the host's kernels
work on (the header, running moments, histories, the judge's words) stays where they are; a whole row, as snapshots hold
it, is the two parts put together, in the CPU's bytes.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.backend import allocate_rows, check_layout, complaint, input_limit, layers_of
from streamlstm.errors import ConfigError, InvariantError
from streamlstm.kernels import cuda_launch
from streamlstm.kernels.cpu import BAD_SHAPE
from streamlstm.kernels.layout import Layout
from streamlstm.kernels.waves import BAD_SLOT
from streamlstm.model.parameters import Parameters


class CudaBackend:
    """See Backend. `device` is the name of what computes."""

    def __init__(self, parameters: Parameters, layout: Layout, max_streams: int) -> None:
        """Raises ConfigError when there is no device or it's too small, ModelFileError as CpuBackend."""
        check_layout(layout, parameters)
        if missing := cuda_launch.missing():
            raise ConfigError([f'engine.backend is "cuda": {missing}'])
        self.device = cuda_launch.device_name()
        self._whole = layout
        self.layout = layout.without_state
        self.row_bytes = layout.row_bytes
        self.input_limit = input_limit(parameters)
        needed, free = cuda_launch.needed_bytes(layout, max_streams), cuda_launch.free_bytes()
        if needed > free:
            raise ConfigError(
                [
                    f"state.max_streams = {max_streams:,} needs {needed / 1e6:,.0f} MB of device memory; "
                    f"expected at most the {free / 1e6:,.0f} MB that are free on {self.device}"
                ]
            )
        self.arena = allocate_rows(max_streams, self.layout.row_bytes)
        self._there = cuda_launch.DeviceArena(
            layers_of(parameters), parameters.head_weight, parameters.head_bias, layout, max_streams
        )

    @property
    def state_bytes(self) -> int:
        return self.arena.nbytes + len(self.arena) * self._there.row_bytes

    def clear(self, slots: NDArray[np.int64]) -> None:
        self.arena[slots] = 0
        self._there.clear(slots)

    def begin(self, slots: NDArray[np.int64]) -> None:
        self._there.clear(slots)

    def step(self, slots: NDArray[np.int64], x: NDArray[np.float32], y: NDArray[np.float32], n: int) -> None:
        found = [array.dtype.name for array in (slots, x, y)]
        if found != ["int64", "float32", "float32"]:
            raise TypeError(f"expected int64, float32, float32; found {', '.join(found)}")
        if not (slots.flags.c_contiguous and x.flags.c_contiguous and y.flags.c_contiguous and y.flags.writeable):
            raise TypeError("expected C-contiguous arrays, y writeable")
        layout = self.layout
        bad = 0
        if min(len(slots), len(x), len(y)) < n or (x.shape[1], y.shape[1]) != (layout.inputs, layout.outputs):
            bad = BAD_SHAPE
        elif n and int(slots[:n].max()) >= len(self.arena):
            bad = BAD_SLOT
        if bad:
            raise InvariantError(complaint(bad, layout, len(self.arena), slots, x, y, n))
        self._there.step(slots, x, y, n)

    def read_rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = np.zeros((len(slots), self.row_bytes), np.uint8)
        state, rest = self._whole.state_bytes, self._rest_bytes
        rows[:, :state] = self._there.read(slots)[:, :state]
        rows[:, self._whole.header_offset :][:, :rest] = self.arena[slots, :rest]
        return rows

    def write_rows(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        state, rest = self._whole.state_bytes, self._rest_bytes
        there = np.zeros((len(slots), self._there.row_bytes), np.uint8)
        there[:, :state] = rows[:, :state]
        self._there.write(slots, there)
        self.arena[slots, :rest] = rows[:, self._whole.header_offset :][:, :rest]

    @property
    def _rest_bytes(self) -> int:
        """Of a row behind its state, without what fills up its last line."""
        return min(self.layout.row_bytes, self.row_bytes - self._whole.header_offset)
