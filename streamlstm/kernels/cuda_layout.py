"""What the kernels of kernels.cuda are told: the plan, the weights in their order, and how the work is cut up.

Letters and gate order are those of kernels.layout. In device memory, `state` is one array of

    rows       [S]        as much of an arena row as a step reads and writes: h and c of each layer, or the ring
    scratch    [blocks][TILE]   h and c of a window, or of rows that hold them in 16 bits; then new h of a layer that
                                doesn't fit shared memory at once

seen as float32 and, for the count of a ring, as int64, for h and c in 16 bits as uint16.

A block of threads takes a tile of streams. A thread owns one hidden unit of STREAMS streams: lane `t % UNITS` of group
`t // UNITS`, so that neighbouring threads read neighbouring weights, and all of a group's the same inputs. Weights come
through the first-level cache, which is the same memory as the shared one, as float32

    per layer: bias [4][H], then [I + H][4][H]          then the head: [O][H], bias [O]

with the gate factors of kernels.packing. In shared memory (float32, behind five int64 tables of TILE entries) lies the
signal: inputs and h of the layer at hand, DEPTH of them at a time, as [DEPTH][TILE + 4]; then sums [16][TILE].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.layout import FLOAT, WORD, Layout, padded, round_up
from streamlstm.kernels.packing import Float32, LayerWeights, scaled

THREADS, WARP = 256, 32  # of a block, at most; of a warp
BLOCKS_EACH = 4  # per multiprocessor: some wait while others compute
PART, LANES = 65_536, 2  # events of a batch that travel together, at most; how many such parts are on their way
ROWS_AT_ONCE = 4096  # whole rows, read or written
STREAMS = 8  # of one thread: 32 sums in registers, and each weight that is read feeds 8 multiply-adds
MOST_GROUPS = 16
SHARED_BYTES = 48 * 1024  # of a block, without asking the driver for more
SECTOR = 32  # bytes that device memory is read by
PAD = 4  # floats behind each row of the signal: 4 threads, not 32, write the same bank
HEAD_LANES = 16  # partial sums of the head, as in kernels.block.dot_in_halves

# The plan: int64 words. Fixed ones, then LAYER_WORDS for each layer. Places in `state` and `weights` are in floats.
(
    INPUTS,
    OUTPUTS,
    WINDOW,
    LAYERS,
    ROW,  # floats of a row
    SCRATCH,  # where the scratch begins
    SCRATCH_ROW,  # floats of one stream's
    NEXT_H,  # where in it new h goes: behind h and c, where those are there
    UNITS,
    GROUPS,
    TILE,
    DEPTH,
    HEAD,  # weights of the head
    HEAD_BIAS,
    DTYPE,  # FLOAT32, or as what rows hold h and c
    PLAN_WORDS,
) = range(16)
LAYER_INPUTS, LAYER_HIDDEN, LAYER_H, LAYER_C, LAYER_WEIGHTS, LAYER_WORDS = range(6)

# Tables in shared memory: int64 [TILE] each.
(
    EVENT,  # the stream's event in the batch
    ROW_AT,  # its row
    STATE_AT,  # its h and c: the row, or scratch
    COUNT,  # inputs of its window; 1 where the state is carried
    NEWEST,  # place in the ring of the newest
    TABLES,
) = range(6)


@dataclass(frozen=True)
class Cut:
    """How the work is cut up: threads of a block, their UNITS, GROUPS, the TILE of streams, the DEPTH of the signal."""

    threads: int
    units: int
    groups: int
    tile: int
    depth: int

    @property
    def shared_bytes(self) -> int:
        return WORD * TABLES * self.tile + FLOAT * (self.depth * (self.tile + PAD) + HEAD_LANES * self.tile)


def cut(layout: Layout, most_threads: int, warp: int, shared_bytes: int = SHARED_BYTES) -> Cut:
    """As many groups as there is room for: a tile's weights are read once for all of them."""
    widest = max(layout.hidden)
    passes = -(-widest // most_threads)
    units = -(-widest // passes)
    inner = max(i + h for i, h in zip((layout.inputs, *layout.hidden), layout.hidden, strict=False))
    groups = max(1, min(most_threads // units, MOST_GROUPS))
    while True:
        tile = STREAMS * groups
        room = (shared_bytes - WORD * TABLES * tile) // FLOAT - HEAD_LANES * tile
        depth = min(inner, room // (tile + PAD))
        if depth == inner or groups == 1:
            return Cut(round_up(units * groups, warp), units, groups, tile, depth)
        groups -= 1


@dataclass(frozen=True)
class DevicePlan:
    """Of a model on a device: `words` int64, `weights` float32, the bytes of a row, and the floats of all scratch."""

    cut: Cut
    words: NDArray[np.int64]
    weights: Float32
    row_bytes: int
    scratch_floats: int


def row_bytes(layout: Layout) -> int:
    """Bytes of a stream's row in device memory."""
    return round_up(layout.state_bytes, SECTOR)


def scratch_row_floats(layout: Layout, how: Cut) -> int:
    return _scratch_state(layout) + (padded(max(layout.hidden)) if how.depth < _inner(layout) else 0)


def _scratch_state(layout: Layout) -> int:
    """Floats of h and c of a stream, where they don't lie in its row."""
    return layout.carried_numbers if layout.window or layout.state_dtype != "float32" else 0


def _inner(layout: Layout) -> int:
    return max(i + h for i, h in zip((layout.inputs, *layout.hidden), layout.hidden, strict=False))


def weight_floats(layout: Layout) -> int:
    """Of `plan(...).weights`, without making them."""
    layers = zip((layout.inputs, *layout.hidden), layout.hidden, strict=False)
    return sum(4 * h * (1 + i + h) for i, h in layers) + layout.outputs * (layout.hidden[-1] + 1)


def order_length(events: int) -> int:
    """int32 that say how a part of `events` is stepped: bounds of its waves, events, slots."""
    return 3 * events + 1


def device_bytes(layout: Layout, streams: int, how: Cut, blocks: int, part: int = PART) -> int:
    """Device memory for `streams` rows, at most `blocks` blocks at a time and parts of up to `part` events."""
    scratch = round_up(FLOAT * blocks * how.tile * scratch_row_floats(layout, how), WORD)
    words = WORD * (PLAN_WORDS + LAYER_WORDS * len(layout.hidden))
    rows = ROWS_AT_ONCE * (FLOAT + row_bytes(layout))
    weights = FLOAT * weight_floats(layout)
    return streams * row_bytes(layout) + scratch + words + weights + LANES * _part_bytes(layout, part) + rows


def host_bytes(layout: Layout, streams: int, part: int = PART) -> int:
    """What goes with it in the host's memory: the scratch of kernels.waves, and the buffers of the parts."""
    order = 4 * streams + streams // 8 + 1 + (2 * WORD + 4) * part + 2 * WORD
    return order + LANES * _part_bytes(layout, part)


def _part_bytes(layout: Layout, part: int) -> int:
    return FLOAT * (order_length(part) + part * (layout.inputs + layout.outputs))


def plan(
    layers: Sequence[LayerWeights], head_weight: Float32, head_bias: Float32, layout: Layout, streams: int, blocks: int,
    how: Cut,
) -> DevicePlan:  # fmt: skip
    """For an arena of `streams` rows and at most `blocks` blocks at a time."""
    words = np.zeros(PLAN_WORDS + LAYER_WORDS * len(layers), np.int64)
    pieces: list[Float32] = []
    size = h_at = 0
    for own, (i, h), layer in zip(
        words[PLAN_WORDS:].reshape(-1, LAYER_WORDS), zip((layout.inputs, *layout.hidden), layout.hidden, strict=False),
        layers, strict=True,
    ):  # fmt: skip
        own[:] = i, h, h_at, h_at + padded(h), size
        h_at += 2 * padded(h)
        ih, hh, bias = scaled(layer)
        pieces += [bias.ravel(), ih.transpose(2, 0, 1).ravel(), hh.transpose(2, 0, 1).ravel()]
        size = sum(len(piece) for piece in pieces)
    row, scratch_row = row_bytes(layout) // FLOAT, scratch_row_floats(layout, how)
    words[:PLAN_WORDS] = (
        layout.inputs, layout.outputs, layout.window, len(layers), row, streams * row, scratch_row,
        _scratch_state(layout), how.units, how.groups, how.tile, how.depth,
        size, size + head_weight.size, layout.dtype_code,
    )  # fmt: skip
    weights = np.concatenate([*pieces, head_weight.ravel(), head_bias.ravel()]).astype(np.float32)
    return DevicePlan(how, words, weights, row_bytes(layout), blocks * how.tile * scratch_row)
