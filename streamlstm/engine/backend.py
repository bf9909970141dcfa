"""The backend of the engine: the arena of streams and the step over it, on the CPU."""

import mmap
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError
from streamlstm.kernels import cpu, packing
from streamlstm.kernels import layout as at
from streamlstm.kernels.compile import compile_only_declared
from streamlstm.kernels.layout import Layout
from streamlstm.kernels.vector import has_wide_vectors
from streamlstm.kernels.waves import BAD_SLOT
from streamlstm.model.parameters import Parameters

HUGE_PAGE = 2 << 20
FLOPS_WORTH_A_THREAD = 4e7  # about 0.5 ms of one core
_FIRST_CAPACITY = 4096


def row_layout(parameters: Parameters, window: int = 0, moments: int = 0) -> Layout:
    return Layout(parameters.inputs, parameters.hidden, parameters.outputs, window, moments)


def row_bytes(parameters: Parameters, window: int = 0, moments: int = 0) -> int:
    """Bytes of memory per stream in the arena."""
    return row_layout(parameters, window, moments).row_bytes


def memory_bytes(layout: Layout, max_streams: int, threads: int, max_events: int) -> int:
    """Bytes that a CpuBackend holds when its batches have up to `max_events` events; known before it is made."""
    arena = max_streams * layout.row_bytes
    weights = packing.packed_bytes(layout.inputs, layout.hidden, layout.outputs)
    return arena + 4 * max_streams + weights + threads * at.workspace_bytes(layout, max_streams, max_events)


def input_limit(parameters: Parameters) -> float:
    """See kernels.packing.input_limit."""
    return packing.input_limit(_layers(parameters), parameters.head_weight, parameters.head_bias)


class CpuBackend:
    """`max_streams` rows and the compiled step over them.

    `arena` is uint8 [max_streams, row_bytes], zero at first. Not thread-safe: one caller at a time, who lends an
    `executor` for batches that are worth `threads` threads. The outputs and rows don't depend on either.
    """

    def __init__(
        self,
        parameters: Parameters,
        layout: Layout,
        max_streams: int,
        executor: Executor | None = None,
        threads: int = 1,
    ) -> None:
        """Raises ModelFileError when the weights are so large that a step could overflow."""
        if (layout.inputs, layout.hidden, layout.outputs) != (
            parameters.inputs,
            parameters.hidden,
            parameters.outputs,
        ):
            raise InvariantError(f"{layout} isn't the layout of these parameters")
        self.layout = layout
        self.row_bytes = layout.row_bytes
        self.input_limit = input_limit(parameters)
        self.arena = _allocate_rows(max_streams, layout.row_bytes)
        self._executor = executor
        self._threads = threads if executor is not None else 1
        self._repeats = np.zeros(max_streams, np.int32)
        wide = has_wide_vectors()
        self._packed = packing.pack(
            _layers(parameters), parameters.head_weight, parameters.head_bias, 16 if wide else 8
        )
        self._plan = self._make_plan(max_streams, wide)
        self._plan_at = self._plan.ctypes.data
        self._grow(_FIRST_CAPACITY)
        compile_only_declared(cpu.step)

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Make the rows of `slots` (int64, each in range) those of new streams."""
        self.arena[slots] = 0

    def step(self, slots: NDArray[np.int64], x: NDArray[np.float32], y: NDArray[np.float32], n: int) -> None:
        """Advance the streams of the first n events, each stream's events in order, and write the outputs.

        slots int64 [>= n] (negative: the event is skipped and its y left alone), x float32 [>= n, I] within
        `input_limit`, y float32 [>= n, O]; all C-contiguous and writeable. TypeError for other dtypes.
        Raises InvariantError for a slot out of range or arrays of another shape.
        """
        if n > self._capacity:
            self._grow(max(n, 2 * self._capacity))
        shares = self._threads
        if shares > 1 and n * self.layout.flops >= FLOPS_WORTH_A_THREAD and self._executor is not None:
            rest = [
                self._executor.submit(cpu.step, self._plan_at, work, share, shares, n, slots, x, y)
                for share, work in enumerate(self._workspaces_at[1:], 1)
            ]
            outcome = cpu.step(self._plan_at, self._workspaces_at[0], 0, shares, n, slots, x, y)
            outcome = min(outcome, *(future.result() for future in rest))
        else:
            outcome = cpu.step(self._plan_at, self._workspaces_at[0], 0, 1, n, slots, x, y)
        if outcome < 0:
            raise InvariantError(_complaint(outcome, self.layout, len(self.arena), slots, x, y, n))

    def _make_plan(self, max_streams: int, wide: bool) -> NDArray[np.int64]:
        """The words of kernels.layout: fixed ones, layers, blocks."""
        layout, weights = self.layout, self._packed.buffer.ctypes.data
        fixed = np.zeros(at.PLAN_WORDS, np.int64)
        fixed[at.ARENA] = self.arena.ctypes.data
        fixed[at.STREAMS] = max_streams
        fixed[at.ROW_BYTES] = layout.row_bytes
        fixed[at.STATE_BYTES] = layout.state_bytes
        fixed[at.CARRIED_BYTES] = layout.carried_bytes
        fixed[at.INPUTS] = layout.inputs
        fixed[at.OUTPUTS] = layout.outputs
        fixed[at.WINDOW] = layout.window
        fixed[at.LAYERS] = len(layout.hidden)
        fixed[at.GROUP] = 6 if wide else 2
        fixed[at.HEAD_WEIGHT] = weights + self._packed.head_weight
        fixed[at.HEAD_BIAS] = weights + self._packed.head_bias
        fixed[at.HEAD_LANES] = at.round_up(at.padded(layout.hidden[-1]), 16)
        fixed[at.HIDDEN_STRIDE] = at.hidden_stride(layout)
        fixed[at.REPEATS] = self._repeats.ctypes.data
        layers: list[int] = []
        blocks: list[int] = []
        h_offset = 0
        for inputs, hidden, offsets in zip(
            (layout.inputs, *layout.hidden), layout.hidden, self._packed.block_offsets, strict=False
        ):
            layers += [inputs, hidden, at.padded(hidden), h_offset, len(offsets)]
            for (unit, width), offset in zip(at.blocks(hidden, 16 if wide else 8), offsets, strict=True):
                blocks += [unit, width, weights + offset]
            h_offset += 2 * at.FLOAT * at.padded(hidden)
        fixed[at.BLOCKS] = len(blocks) // at.BLOCK_WORDS
        return np.concatenate([fixed, np.array(layers + blocks, np.int64)])

    def _grow(self, capacity: int) -> None:
        """Make the shares' workspaces large enough for batches of `capacity` events."""
        self._capacity = capacity
        self._scratch: list[NDArray[np.uint8]] = []
        self._workspaces: list[NDArray[np.int64]] = []
        for _ in range(self._threads):
            memory = at.aligned_zeros(at.workspace_bytes(self.layout, len(self.arena), capacity))
            words = np.zeros(at.WORKSPACE_WORDS, np.int64)
            address = memory.ctypes.data
            for word, size in at.workspace_parts(self.layout, len(self.arena), capacity):
                words[word] = address
                address += size
            self._scratch.append(memory)
            self._workspaces.append(words)
        self._workspaces_at = [words.ctypes.data for words in self._workspaces]


def _layers(parameters: Parameters) -> list[packing.LayerWeights]:
    return [(layer.weight_ih, layer.weight_hh, layer.bias) for layer in parameters.layers]


def _allocate_rows(rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """uint8 [rows, row_bytes], zero, on a page boundary, resident as it is touched; huge pages when it fills some."""
    size = rows * row_bytes
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory gets no huge pages
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8).reshape(rows, row_bytes)


def _complaint(
    outcome: int,
    layout: Layout,
    streams: int,
    slots: NDArray[np.int64],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    n: int,
) -> str:
    if outcome == BAD_SLOT:
        return f"CpuBackend.step: slot: expected below {streams}, found {slots[:n].max()}"
    expected = f"slots [{n}], x [{n}, {layout.inputs}], y [{n}, {layout.outputs}]"
    return f"CpuBackend.step: arrays: expected {expected}, found {slots.shape}, {x.shape}, {y.shape}"
