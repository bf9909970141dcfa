"""The backends of the engine: the arena of streams and the step over it. The CPU's, and which one is asked for."""

import mmap
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.kernels import cpu, cuda_layout, packing
from streamlstm.kernels import layout as at
from streamlstm.kernels.compile import compile_only_declared
from streamlstm.kernels.layout import Layout, StateDtype
from streamlstm.kernels.vector import has_wide_vectors
from streamlstm.kernels.waves import BAD_SLOT
from streamlstm.model.parameters import Parameters

HUGE_PAGE = 2 << 20
FLOPS_WORTH_A_THREAD = 4e7  # about 0.5 ms of one core
_FIRST_CAPACITY = 4096

BackendName = Literal["cpu", "cuda"]


def row_layout(
    parameters: Parameters, window: int = 0, moments: int = 0, state_dtype: StateDtype = "float32"
) -> Layout:
    return Layout(parameters.inputs, parameters.hidden, parameters.outputs, window, moments, state_dtype=state_dtype)


def row_bytes(parameters: Parameters, window: int = 0, moments: int = 0) -> int:
    """Bytes of memory per stream in the arena."""
    return row_layout(parameters, window, moments).row_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a backend takes: of each stream on the host (its row, and its place in the order of events), of
    everything else there; of each stream on a device, and of everything else there.
    """

    row: int
    order: int
    other: int
    device_row: int = 0
    device_other: int = 0


def memory_of(name: BackendName, layout: Layout, max_streams: int, threads: int, max_events: int) -> Memory:
    """Known before the backend is made, for batches of up to `max_events` events; `layout` is that of a whole row. The
    device is taken for one of 132 multiprocessors.
    """
    if name == "cpu":
        whole = memory_bytes(layout, max_streams, threads, max_events)
        return Memory(layout.row_bytes, 4, whole - max_streams * (layout.row_bytes + 4))
    how = cuda_layout.cut(layout, cuda_layout.THREADS, cuda_layout.WARP)
    host = cuda_layout.host_bytes(layout, max_streams)
    there = cuda_layout.device_bytes(layout, max_streams, how, 132 * cuda_layout.BLOCKS_EACH)
    row, device_row = layout.without_state.row_bytes, cuda_layout.row_bytes(layout)
    return Memory(row, 4, host - 4 * max_streams, device_row, there - max_streams * device_row)


def memory_bytes(layout: Layout, max_streams: int, threads: int, max_events: int) -> int:
    """Bytes that a CpuBackend holds when its batches have up to `max_events` events; known before it is made."""
    arena = max_streams * layout.row_bytes
    weights = packing.packed_bytes(layout.inputs, layout.hidden, layout.outputs)
    return arena + 4 * max_streams + weights + threads * at.workspace_bytes(layout, max_streams, max_events)


def input_limit(parameters: Parameters) -> float:
    """See kernels.packing.input_limit."""
    return packing.input_limit(layers_of(parameters), parameters.head_weight, parameters.head_bias)


class Backend(Protocol):
    """`max_streams` rows and the step over them. Not thread-safe: one caller at a time.

    `arena` uint8 [max_streams, ..], zero at first, has as much of each row as the host works on, as `layout` says: the
    whole row, or its rest where the state lies on a device. `row_bytes` is a whole row's, and `state_bytes` all rows'
    together, wherever they lie. `device` names what computes.
    """

    device: str

    @property
    def layout(self) -> Layout: ...

    @property
    def arena(self) -> NDArray[np.uint8]: ...

    @property
    def row_bytes(self) -> int: ...

    @property
    def state_bytes(self) -> int: ...

    @property
    def input_limit(self) -> float: ...

    def step(self, slots: NDArray[np.int64], x: NDArray[np.float32], y: NDArray[np.float32], n: int) -> None:
        """Advance the streams of the first n events, each stream's events in order, and write the outputs.

        slots int64 [>= n] (negative: the event is skipped and its y left alone), x float32 [>= n, I] within
        `input_limit`, y float32 [>= n, O]; all C-contiguous and writeable. TypeError for other dtypes.
        Raises InvariantError for a slot out of range or arrays of another shape; nothing has moved then.
        """

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Make the rows of `slots` (int64, each in range) those of new streams."""

    def begin(self, slots: NDArray[np.int64]) -> None:
        """The streams of `slots` begin anew with their next event: what `arena` has of their rows is set already."""

    def read_rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The whole rows of `slots`, uint8 [N, row_bytes], a copy: the same bytes whatever the backend."""

    def write_rows(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Set the rows of `slots` to `rows` uint8 [N, row_bytes]."""


def make_backend(
    name: BackendName,
    parameters: Parameters,
    layout: Layout,
    max_streams: int,
    executor: Executor | None = None,
    threads: int = 1,
) -> Backend:
    """The backend that was asked for, never another. Raises ConfigError when its device, or what drives it, is missing;
    ModelFileError when the weights are so large that a step could overflow.
    """
    if name == "cpu":
        return CpuBackend(parameters, layout, max_streams, executor, threads)
    try:
        from streamlstm.engine.cuda_backend import CudaBackend  # noqa: PLC0415 - loads the CUDA driver's bindings
    except ImportError as error:
        raise ConfigError([f'engine.backend is "cuda": {error}']) from None
    return CudaBackend(parameters, layout, max_streams)


class CpuBackend:
    """`max_streams` rows and the compiled step over them.

    `arena` is uint8 [max_streams, row_bytes], zero at first. Not thread-safe: one caller at a time, who lends an
    `executor` for batches that are worth `threads` threads. The outputs and rows don't depend on either.
    """

    device = "cpu"

    def __init__(
        self,
        parameters: Parameters,
        layout: Layout,
        max_streams: int,
        executor: Executor | None = None,
        threads: int = 1,
    ) -> None:
        """Raises ModelFileError when the weights are so large that a step could overflow."""
        check_layout(layout, parameters)
        self.layout = layout
        self.row_bytes = layout.row_bytes
        self.input_limit = input_limit(parameters)
        self.arena = allocate_rows(max_streams, layout.row_bytes)
        self._executor = executor
        self._threads = threads if executor is not None else 1
        self._repeats = np.zeros(max_streams, np.int32)
        wide = has_wide_vectors()
        self._packed = packing.pack(
            layers_of(parameters), parameters.head_weight, parameters.head_bias, 16 if wide else 8
        )
        self._plan = self._make_plan(max_streams, wide)
        self._plan_at = self._plan.ctypes.data
        self._grow(_FIRST_CAPACITY)
        compile_only_declared(cpu.step)

    @property
    def state_bytes(self) -> int:
        return self.arena.nbytes

    def clear(self, slots: NDArray[np.int64]) -> None:
        self.arena[slots] = 0

    def begin(self, slots: NDArray[np.int64]) -> None:
        pass  # the arena is all there is

    def read_rows(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.arena[slots]

    def write_rows(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        self.arena[slots] = rows

    def step(self, slots: NDArray[np.int64], x: NDArray[np.float32], y: NDArray[np.float32], n: int) -> None:
        """See Backend.step."""
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
            raise InvariantError(complaint(outcome, self.layout, len(self.arena), slots, x, y, n))

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
        fixed[at.DTYPE] = layout.dtype_code
        layers: list[int] = []
        blocks: list[int] = []
        h_offset = 0
        for inputs, hidden, offsets in zip(
            (layout.inputs, *layout.hidden), layout.hidden, self._packed.block_offsets, strict=False
        ):
            layers += [inputs, hidden, at.padded(hidden), h_offset, len(offsets)]
            for (unit, width), offset in zip(at.blocks(hidden, 16 if wide else 8), offsets, strict=True):
                blocks += [unit, width, weights + offset]
            h_offset += 2 * at.FLOAT * at.padded(hidden)  # of the state as it is stepped
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


def layers_of(parameters: Parameters) -> list[packing.LayerWeights]:
    return [(layer.weight_ih, layer.weight_hh, layer.bias) for layer in parameters.layers]


def allocate_rows(rows: int, row_bytes: int) -> NDArray[np.uint8]:
    """uint8 [rows, row_bytes], zero, on a page boundary, resident as it is touched; huge pages when it fills some."""
    size = rows * row_bytes
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory gets no huge pages
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8).reshape(rows, row_bytes)


def check_layout(layout: Layout, parameters: Parameters) -> None:
    """Raises InvariantError."""
    if (layout.inputs, layout.hidden, layout.outputs) != (parameters.inputs, parameters.hidden, parameters.outputs):
        raise InvariantError(f"{layout} isn't the layout of these parameters")


def complaint(
    outcome: int,
    layout: Layout,
    streams: int,
    slots: NDArray[np.int64],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    n: int,
) -> str:
    if outcome == BAD_SLOT:
        return f"Backend.step: slot: expected below {streams}, found {slots[:n].max()}"
    expected = f"slots [{n}], x [{n}, {layout.inputs}], y [{n}, {layout.outputs}]"
    return f"Backend.step: arrays: expected {expected}, found {slots.shape}, {x.shape}, {y.shape}"
