"""Where everything lies: the rows of the arena, the blocks of a layer, the plan that the step kernel reads.

Letters: S streams, N events, I inputs, H hidden size of a layer (each layer has its own), L layers, O outputs,
T steps of a window. Gate order everywhere: i, f, g, o. All strides and offsets are in bytes; h and c are float32, or
stored as float16 or bfloat16 (kernels.half).

A row holds one stream:

    carry (window = 0)     per layer: h [P] | c [P]         P = H rounded up to whole blocks; lanes past H stay 0
    window = T             count int64 | ring of the last T inputs, float32 [T][I]: input number n lies at n mod T

then, at `header_offset`, 8-byte words that belong to the caller (see kernels.observe):

    n_seen      int64            events of the stream so far
    last_time   int64            its latest event time, epoch ms
    yhat        float64 [O]      its last forecast, in the unit of the target
    x           float64 [F]      its last inputs as received; a missing value is there as it was filled in
    moments     float64          as many as the scaling needs
    history     anchor, the one before, float64, since when int64, mean change float64 | float32 [R]: kernels.features
    judge       what the stream's own forecasts have taught: see kernels.judge

F is I, but for a model that reads lags of its target (Features): that has F inputs as received, I as the network takes
them. Rows begin on 64-byte boundaries. A row of zeros is a new stream. The row's layout doesn't depend on the CPU.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from streamlstm.errors import InvariantError

LINE = 64  # bytes of a cache line
WORD = 8
FLOAT = 4
STATE_ABI = 4
"""Changes when a row's layout or the arithmetic of a step does: rows of another number mean something else."""
N_SEEN, LAST_TIME, YHAT = range(3)  # words from the header's start; x and the moments follow the O words of yhat
HISTORY_WORDS = 4  # before the history's values
TILE = 48  # streams that take each block of weights together, so that it stays in the first-level caches
GATES = 4

StateDtype = Literal["float32", "float16", "bfloat16"]
"""As what h and c lie in a row; a step always computes in float32."""
FLOAT32, FLOAT16, BFLOAT16 = range(3)  # the places of these in StateDtype, as compiled code knows them
STATE_DTYPES: tuple[StateDtype, ...] = get_args(StateDtype)
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def blocks(hidden: int, widest: int = 16) -> list[tuple[int, int]]:
    """(first unit, width) of each block of a layer.

    Blocks are `widest` (16 or 8) units wide; the rest is one block of 4 for up to 4 units, of 8 for up to 8, else
    one padded block of 16. Padding H = 50 to 64 instead would cost a quarter of the time.
    """
    whole = hidden // widest * widest
    result = [(unit, widest) for unit in range(0, whole, widest)]
    if rest := hidden - whole:
        result.append((whole, next(width for width in (4, 8, 16) if rest <= width)))
    return result


def padded(hidden: int) -> int:
    """P: units of a layer with its padding. Always that of blocks of 16, so that rows are the same on every CPU."""
    unit, width = blocks(hidden)[-1]
    return unit + width


@dataclass(frozen=True, slots=True)
class Layout:
    """The arena row of a model: inputs I, hidden (one H per layer), outputs O, window T (0 = carry the state), the
    number of float64 `moments` that the header holds, the inputs F as `received` (0: as many as `inputs`), the R values
    of `history` (0: none is kept), the `judge`'s 8-byte words, and the `state_dtype` of h and c; a window has none of
    these, so its is float32.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    window: int = 0
    moments: int = 0
    received: int = 0
    history: int = 0
    judge: int = 0
    state_dtype: StateDtype = "float32"

    def __post_init__(self) -> None:
        if self.window and self.state_dtype != "float32":
            raise InvariantError(f"a row with a window holds no state as {self.state_dtype}")

    @property
    def dtype_code(self) -> int:
        """FLOAT32, FLOAT16 or BFLOAT16."""
        return STATE_DTYPES.index(self.state_dtype)

    @property
    def carried_numbers(self) -> int:
        """h and c of all layers, with their padding: a multiple of 8."""
        return sum(2 * padded(hidden) for hidden in self.hidden)

    @property
    def carried_bytes(self) -> int:
        """Bytes of h and c of all layers as a step computes with them, in float32."""
        return FLOAT * self.carried_numbers

    @property
    def state_bytes(self) -> int:
        """Bytes of a row that the step kernel reads and writes."""
        if self.window == 0:
            return _DTYPE_BYTES[self.state_dtype] * self.carried_numbers
        return WORD + FLOAT * self.window * self.inputs

    @property
    def header_offset(self) -> int:
        """Bytes from a row's start to the caller's words; a multiple of 8."""
        return round_up(self.state_bytes, WORD)

    @property
    def header_at(self) -> int:
        """The header in 8-byte words from a row's start."""
        return self.header_offset // WORD

    @property
    def yhat_at(self) -> int:
        """In words from a row's start, as are the next two."""
        return self.header_at + YHAT

    @property
    def x_at(self) -> int:
        return self.yhat_at + self.outputs

    @property
    def moments_at(self) -> int:
        return self.x_at + (self.received or self.inputs)

    @property
    def history_at(self) -> int:
        return self.moments_at + self.moments

    @property
    def judge_at(self) -> int:
        history = HISTORY_WORDS + round_up(FLOAT * self.history, WORD) // WORD
        return self.history_at + (history if self.history else 0)

    @property
    def row_bytes(self) -> int:
        return round_up(WORD * (self.judge_at + self.judge), LINE)

    @property
    def without_state(self) -> "Layout":
        """The rest of the row, for a machine that keeps the state elsewhere: it begins with the header."""
        return replace(self, hidden=(), window=0)

    @property
    def flops(self) -> int:
        """Multiplications and additions of one event, activations not counted."""
        inputs = (self.inputs, *self.hidden)
        step = sum(2 * GATES * h * (i + h) for i, h in zip(inputs, self.hidden, strict=False))
        return max(1, self.window) * step + 2 * self.outputs * self.hidden[-1]


# The plan: int64 words that tell the step kernel where things are. Fixed words first, then LAYER_WORDS for each layer,
# then BLOCK_WORDS for each block of each layer in order.
(
    ARENA,  # address of row 0
    STREAMS,  # rows of the arena
    ROW_BYTES,
    STATE_BYTES,
    CARRIED_BYTES,
    INPUTS,
    OUTPUTS,
    WINDOW,
    LAYERS,
    BLOCKS,  # in all layers together
    GROUP,  # most streams in one micro-kernel: 6, or 2 where registers are few
    HEAD_WEIGHT,  # address of float32 [O][Q], Q = P of the last layer rounded up to 16, zeros past H
    HEAD_BIAS,  # address of float32 [O]
    HEAD_LANES,  # Q
    HIDDEN_STRIDE,  # bytes of one stream's row of new h in the scratch
    REPEATS,  # address of int32 [S], all zero between calls: see kernels.waves
    DTYPE,  # FLOAT32, or as what h and c are stored
    PLAN_WORDS,
) = range(18)
LAYER_INPUTS, LAYER_HIDDEN, LAYER_PADDED, LAYER_H_OFFSET, LAYER_BLOCKS, LAYER_WORDS = range(6)
BLOCK_UNIT, BLOCK_WIDTH, BLOCK_WEIGHTS, BLOCK_WORDS = range(4)

# The workspace of one share (thread): int64 words, addresses of memory that only this share touches.
(
    ORDER,  # int64 [capacity]: positions of the share's events, wave by wave
    WAVE_OF_EVENT,  # int32 [capacity]
    SEEN,  # uint8 [S / 8 + 1], all zero between calls: see kernels.waves
    BOUNDS,  # int64 [capacity + 2]: wave w is ORDER[BOUNDS[w] .. BOUNDS[w + 1]]
    X_TABLE,  # int64 [TILE]: addresses of the inputs of the layer at hand
    H_TABLE,  # int64 [TILE]: addresses of h of the layer at hand
    STATE_TABLE,  # int64 [TILE]: addresses of h of the first layer
    ROW_TABLE,  # int64 [2][TILE]: addresses of the rows of this tile and the next
    RING_TABLE,  # int64 [TILE]: ring position of each stream's oldest input
    HIDDEN,  # float32 [L][TILE][HIDDEN_STRIDE / 4]: h' of each layer; lanes past P are never written and stay 0
    STATE,  # float32 h and c of TILE streams, where they don't lie in the row: for a window's steps, or widened
    WORKSPACE_WORDS,
) = range(12)


def workspace_bytes(layout: Layout, streams: int, events: int) -> int:
    """Bytes of scratch of one share for `streams` rows and batches of up to `events` events."""
    return sum(size for _, size in workspace_parts(layout, streams, events))


def hidden_stride(layout: Layout) -> int:
    """Bytes of one stream's row of new h in the scratch: the widest layer's, in whole vectors of 16."""
    return FLOAT * max(round_up(padded(hidden), 16) for hidden in layout.hidden)


def workspace_parts(layout: Layout, streams: int, events: int) -> list[tuple[int, int]]:
    """(word of the workspace, bytes) of every part, each a multiple of 64."""
    is_apart = layout.window > 0 or layout.state_dtype != "float32"
    sizes = {
        ORDER: WORD * events,
        WAVE_OF_EVENT: 4 * events,
        SEEN: streams // 8 + 1,
        BOUNDS: WORD * (events + 2),
        X_TABLE: WORD * TILE,
        H_TABLE: WORD * TILE,
        STATE_TABLE: WORD * TILE,
        ROW_TABLE: 2 * WORD * TILE,
        RING_TABLE: WORD * TILE,
        HIDDEN: len(layout.hidden) * TILE * hidden_stride(layout),
        STATE: TILE * layout.carried_bytes if is_apart else 0,
    }
    return [(word, round_up(size, LINE)) for word, size in sizes.items()]


def aligned_zeros(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """uint8 [size], zero, beginning on a 64-byte boundary."""
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]
