"""The state of streams in device memory, and batches of events on their way through the device.

A batch goes in parts. Two lanes take them in turns, each with buffers of its own, page-locked on the host, and a stream
of the device: while one part is stepped, the next is ordered and copied in, and the one before copied out. A part is
stepped after the one before it: they may hold events of the same streams.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from streamlstm.kernels import cuda as kernels
from streamlstm.kernels import cuda_layout as at
from streamlstm.kernels.cuda_machine import LEAST_PART, PART, SIMULATED, THREADS, WARP, make_event, multiprocessors
from streamlstm.kernels.layout import FLOAT, WORD, Layout
from streamlstm.kernels.packing import Float32, LayerWeights
from streamlstm.kernels.waves import order_by_wave, rank_waves


def missing() -> str:
    """What keeps the device from being used, and what was expected; empty: nothing."""
    if SIMULATED or cuda.is_available():
        return ""
    why = " ".join(str(cuda.cuda_error() or "none is there").split())
    return f"no CUDA device can be used ({why}); expected an NVIDIA GPU and its driver"


def device_name() -> str:
    """What computes, for the log."""
    name = "simulator" if SIMULATED else cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def free_bytes() -> float:
    """Of the device's memory."""
    return float(cuda.current_context().get_memory_info()[0])


def needed_bytes(layout: Layout, streams: int) -> int:
    """What a DeviceArena will take of it."""
    blocks = multiprocessors() * at.BLOCKS_EACH
    return at.device_bytes(layout, streams, at.cut(layout, THREADS, WARP), blocks, PART)


class Lane:
    """One part of a batch: its buffers on both sides, and its stream."""

    def __init__(self, layout: Layout, events: int) -> None:
        self.stream = cuda.stream()
        self.stepped = make_event()
        shapes = ((at.order_length(events), np.int32), ((events, layout.inputs), np.float32),
                  ((events, layout.outputs), np.float32))  # fmt: skip
        self.order, self.x, self.y = (cuda.pinned_array(shape, dtype) for shape, dtype in shapes)
        self.order_there, self.x_there, self.y_there = (cuda.device_array(shape, dtype) for shape, dtype in shapes)
        self.waves, self.streams = 0, 0
        self.y_wanted: Float32 | None = None
        self.is_answered: NDArray[np.bool_] | None = None

    @property
    def nbytes(self) -> int:
        return int(self.order_there.nbytes + self.x_there.nbytes + self.y_there.nbytes)

    def finish(self) -> None:
        """Wait for the part in this lane, if there is one, and hand its outputs over."""
        if self.y_wanted is None:
            return
        self.stream.synchronize()
        own = self.y[: len(self.y_wanted)]
        if self.is_answered is None:
            self.y_wanted[...] = own
        else:
            np.copyto(self.y_wanted, own, where=self.is_answered[:, None])
        self.y_wanted = self.is_answered = None


class DeviceArena:
    """`streams` rows in device memory and the step over them. Not thread-safe. Slots are to be in range."""

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        head_weight: Float32,
        head_bias: Float32,
        layout: Layout,
        streams: int,
        shared_bytes: int = at.SHARED_BYTES,
        part: int = PART,
    ) -> None:
        """`shared_bytes` of shared memory is what a block may take; batches go in parts of up to `part` events."""
        how = at.cut(layout, THREADS, WARP, shared_bytes)
        self.blocks = multiprocessors() * at.BLOCKS_EACH
        plan = at.plan(layers, head_weight, head_bias, layout, streams, self.blocks, how)
        self.cut, self.row_bytes = how, plan.row_bytes
        self._streams, self._part = streams, part
        self._plan, self._weights = cuda.to_device(plan.words), cuda.to_device(plan.weights)
        size = streams * plan.row_bytes // WORD + -(-plan.scratch_floats * FLOAT // WORD)
        self._words = cuda.device_array(size, np.int64)
        self._state, self._halves = self._words.view(np.float32), self._words.view(np.uint16)
        kernels.clear_all[self.blocks, THREADS](self._words)
        self.lanes = [Lane(layout, part) for _ in range(at.LANES)]
        self._slots_there = cuda.device_array(at.ROWS_AT_ONCE, np.int32)
        self._rows_there = cuda.device_array((at.ROWS_AT_ONCE, plan.row_bytes // WORD), np.int64)
        self._repeats = np.zeros(streams, np.int32)
        self._seen = np.zeros(streams // 8 + 1, np.uint8)
        self._wave_of_event = np.zeros(part, np.int32)
        self._order, self._bounds = np.zeros(part, np.int64), np.zeros(part + 2, np.int64)

    def step(self, slots: NDArray[np.int64], x: Float32, y: Float32, n: int) -> None:
        """See the backend's."""
        size = min(max(-(-n // 4), LEAST_PART), self._part)
        before: Lane | None = None
        for number, start in enumerate(range(0, n, size)):
            lane, part = self.lanes[number % at.LANES], slice(start, min(start + size, n))
            lane.finish()
            if self.stage(lane, slots[part], x[part]):
                if before is not None:
                    before.stepped.wait(lane.stream)
                self.launch(lane)
                lane.stepped.record(lane.stream)
                self._fetch(lane, slots[part], y[part])
                before = lane
        for lane in self.lanes:
            lane.finish()

    def stage(self, lane: Lane, slots: NDArray[np.int64], x: Float32) -> int:
        """Order the events of a part and copy them to the device; returns how many streams they are of."""
        n = len(slots)
        repeats, order, bounds = (array.ctypes.data for array in (self._repeats, self._order, self._bounds))
        lane.waves = waves = order_by_wave(
            n, slots, self._streams, 0, 1, self._seen.ctypes.data, repeats, self._wave_of_event.ctypes.data, order,
            bounds,
        )  # fmt: skip
        if waves == 0:
            return 0
        events, lane.streams = int(self._bounds[waves]), int(self._bounds[1])
        ends = np.cumsum([waves + 1, events, lane.streams])
        bounds_there, ranked, slot_of_rank = np.split(lane.order[: ends[-1]], ends[:-1])
        rank_waves(waves, slots, order, bounds, repeats, ranked, slot_of_rank, bounds_there)
        lane.x[:n] = x
        lane.order_there[: ends[-1]].copy_to_device(lane.order[: ends[-1]], stream=lane.stream)
        lane.x_there[:n].copy_to_device(lane.x[:n], stream=lane.stream)
        return int(lane.streams)

    def launch(self, lane: Lane) -> None:
        """Step the part that was staged. Returns before it's done."""
        blocks = min(-(-lane.streams // self.cut.tile), self.blocks)
        kernels.step[blocks, self.cut.threads, lane.stream, self.cut.shared_bytes](
            self._plan, self._weights, self._words, self._state, self._halves, lane.waves, lane.order_there,
            lane.x_there, lane.y_there,
        )  # fmt: skip

    def _fetch(self, lane: Lane, slots: NDArray[np.int64], y: Float32) -> None:
        n = len(slots)
        lane.y_there[:n].copy_to_host(lane.y[:n], stream=lane.stream)
        is_answered = slots >= 0
        lane.y_wanted, lane.is_answered = y, None if is_answered.all() else is_answered

    @property
    def nbytes(self) -> int:
        """Of device memory."""
        own = [self._plan, self._weights, self._words, self._slots_there, self._rows_there]
        return int(sum(array.nbytes for array in own)) + sum(lane.nbytes for lane in self.lanes)

    # ---------------------------------------------------------------------------------------------------- whole rows

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Make the rows of `slots` those of new streams."""
        for part in self._parts(slots):
            kernels.clear_rows[self._row_blocks(part), THREADS](self._words, self.row_bytes // WORD, part)

    def read(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The rows of `slots`, uint8 [N, row_bytes]."""
        rows = np.empty((len(slots), self.row_bytes // WORD), np.int64)
        for number, part in enumerate(self._parts(slots)):
            there, first = self._rows_there[: len(part)], number * at.ROWS_AT_ONCE
            kernels.read_rows[self._row_blocks(part), THREADS](self._words, self.row_bytes // WORD, part, there)
            there.copy_to_host(rows[first : first + len(part)])
        return rows.view(np.uint8)

    def write(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Set the rows of `slots` to `rows` uint8 [N, row_bytes]."""
        words = np.ascontiguousarray(rows).view(np.int64)
        for number, part in enumerate(self._parts(slots)):
            there, first = self._rows_there[: len(part)], number * at.ROWS_AT_ONCE
            there.copy_to_device(words[first : first + len(part)])
            kernels.write_rows[self._row_blocks(part), THREADS](self._words, self.row_bytes // WORD, part, there)

    def _parts(self, slots: NDArray[np.int64]) -> Any:
        for first in range(0, len(slots), at.ROWS_AT_ONCE):
            own = slots[first : first + at.ROWS_AT_ONCE].astype(np.int32)
            there = self._slots_there[: len(own)]
            there.copy_to_device(own)
            yield there

    def _row_blocks(self, slots: Any) -> int:
        return max(1, min(len(slots), self.blocks))
