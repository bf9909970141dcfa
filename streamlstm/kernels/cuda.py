"""One LSTM step per event, for a batch of events: the CUDA twin of kernels.cpu, with the same bits.

Every gate sum is the CPU's chain (bias, then the inputs, then h, in the order of k, each product added by a fused
multiply-add), the cell is kernels.cell compiled once more, the head the same 16 partial sums added in halves. NaN stays
NaN, but which NaN isn't promised.

Waves (kernels.waves) aren't launched one after the other: streams are ranked by how many events of the batch are
theirs, so that wave w holds the ranks [0, size of w) in order, and a block takes its tile of ranks through all waves
that it is in. A batch is one launch, however its events are spread.

See kernels.cuda_layout for `plan`, `weights` and `state`, and for what a thread does. Kernels run in the simulator, as
Python, too; kernels.cuda_machine has what differs there.
"""

from typing import Any

import numpy as np
from numba import cuda

from streamlstm.kernels import cuda_layout as at
from streamlstm.kernels.compile import device_function, device_kernel
from streamlstm.kernels.cuda_machine import (
    MACHINE,
    WARP,
    cell_state,
    hidden_state,
    index,
    narrow_bfloat16,
    narrow_float16,
    shared_floats,
    shared_words,
    widen_bfloat16,
    widen_float16,
)
from streamlstm.kernels.layout import FLOAT16, FLOAT32

Array = Any  # on the device
OfGates = tuple[Any, Any, Any, Any]  # float32 of i, f, g, o

_add, _fma = MACHINE.add, MACHINE.fma
_RING = 2  # floats before a ring: its count


@device_kernel
def step(
    plan: Array, weights: Array, words: Array, state: Array, halves: Array, waves: int, order: Array, x: Array,
    y: Array,
) -> None:  # fmt: skip
    """Advance each stream by its events of a batch, in order, and write each event's output.

    plan, weights     int64 and float32, read
    words, state, halves   the same memory as int64, float32 and uint16: rows, then scratch for as many blocks as are
                      launched
    order             int32, as `kernels.waves.rank_waves` makes them, one behind the other: bounds [waves + 1], events
                      by wave and rank, the slot of each rank
    x, y              float32 [events, I], [events, O]
    """
    table, signal = shared_words(), shared_floats()
    tile, window = plan[at.TILE], plan[at.WINDOW]
    slots_at = waves + 1 + order[waves]
    for first in range(tile * cuda.blockIdx.x, order[1], tile * cuda.gridDim.x):
        for wave in range(waves):
            begin = order[wave] + first
            active = min(tile, order[wave + 1] - begin)
            if active <= 0:
                break
            _enter(plan, words, state, table, active, order, waves + 1 + begin, slots_at + first, x)
            if plan[at.DTYPE] != FLOAT32:
                _widen_rows(plan, halves, state, table, active)
            steps = 1
            if window > 0:
                for stream in range(active):
                    steps = max(steps, table[index(at.COUNT * tile + stream)])
            for back in range(steps, 0, -1):  # steps left, this one included
                for layer in range(plan[at.LAYERS]):
                    _advance_layer(plan, weights, state, table, signal, layer, back, active, x)
            _write_outputs(plan, weights, state, table, signal, active, y)
            if plan[at.DTYPE] != FLOAT32:
                _narrow_rows(plan, halves, state, table, active)


@device_function
def _enter(
    plan: Array, words: Array, state: Array, table: Array, active: int, order: Array, events: int, slots: int, x: Array
) -> None:
    """Fill the tables for order[events ..], of order[slots ..]; take a window's input into its ring, and set its state
    to zero.
    """
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    tile, window, inputs = plan[at.TILE], plan[at.WINDOW], plan[at.INPUTS]
    scratch = plan[at.SCRATCH] + plan[at.SCRATCH_ROW] * tile * cuda.blockIdx.x
    for stream in range(thread, active, threads):
        event, row = order[index(events + stream)], plan[at.ROW] * order[index(slots + stream)]
        table[index(at.EVENT * tile + stream)] = event
        table[index(at.ROW_AT * tile + stream)] = row
        own = scratch + plan[at.SCRATCH_ROW] * stream
        if window == 0:
            table[index(at.STATE_AT * tile + stream)] = row if plan[at.DTYPE] == FLOAT32 else own
            table[index(at.COUNT * tile + stream)] = 1
        else:
            count = words[index(row // 2)]
            newest = count % window
            for k in range(inputs):
                state[index(row + _RING + inputs * newest + k)] = x[index(event), index(k)]
            words[index(row // 2)] = count + 1
            for k in range(plan[at.NEXT_H]):
                state[index(own + k)] = np.float32(0.0)
            table[index(at.STATE_AT * tile + stream)] = own
            table[index(at.COUNT * tile + stream)] = min(count + 1, window)
            table[index(at.NEWEST * tile + stream)] = newest
    cuda.syncthreads()


@device_function
def _widen_rows(plan: Array, halves: Array, state: Array, table: Array, active: int) -> None:
    """Put h and c of each stream of the tile into the scratch as float32."""
    thread, warps, tile = cuda.threadIdx.x, cuda.blockDim.x // WARP, plan[at.TILE]
    for stream in range(thread // WARP, active, warps):
        row, own = 2 * table[index(at.ROW_AT * tile + stream)], table[index(at.STATE_AT * tile + stream)]
        for k in range(thread % WARP, plan[at.NEXT_H], WARP):
            stored = np.int64(halves[index(row + k)])  # as kernels.cuda_machine takes integers
            if plan[at.DTYPE] == FLOAT16:
                state[index(own + k)] = widen_float16(MACHINE, stored)
            else:
                state[index(own + k)] = widen_bfloat16(MACHINE, stored)
    cuda.syncthreads()


@device_function
def _narrow_rows(plan: Array, halves: Array, state: Array, table: Array, active: int) -> None:
    """Put h and c of each stream of the tile back into its row."""
    thread, warps, tile = cuda.threadIdx.x, cuda.blockDim.x // WARP, plan[at.TILE]
    for stream in range(thread // WARP, active, warps):
        row, own = 2 * table[index(at.ROW_AT * tile + stream)], table[index(at.STATE_AT * tile + stream)]
        for k in range(thread % WARP, plan[at.NEXT_H], WARP):
            value = state[index(own + k)]
            if plan[at.DTYPE] == FLOAT16:
                halves[index(row + k)] = narrow_float16(MACHINE, value)
            else:
                halves[index(row + k)] = narrow_bfloat16(MACHINE, value)
    cuda.syncthreads()


@device_function
def _advance_layer(
    plan: Array, weights: Array, state: Array, table: Array, signal: Array, layer: int, back: int, active: int, x: Array
) -> None:
    """One step of one layer, for the streams of the tile that have an input `back` - 1 before their newest."""
    thread = cuda.threadIdx.x
    lane, group = thread % plan[at.UNITS], thread // plan[at.UNITS]
    of_layer = at.PLAN_WORDS + at.LAYER_WORDS * layer
    hidden, bias = plan[of_layer + at.LAYER_HIDDEN], plan[of_layer + at.LAYER_WEIGHTS]
    inner, depth = plan[of_layer + at.LAYER_INPUTS] + hidden, plan[at.DEPTH]
    quads = (plan[at.TILE] + at.PAD) // 4
    first_quad = 2 * at.TABLES * plan[at.TILE] // 4 + at.STREAMS // 4 * group
    zeros: OfGates = (np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0))
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros  # gate sums of STREAMS streams: values, so that they are registers
    for first_unit in range(0, hidden, plan[at.UNITS]):
        unit = first_unit + lane
        works = group < plan[at.GROUPS] and unit < hidden and at.STREAMS * group < active
        if works:
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = _weights_of(weights, bias + unit, hidden)
        for start in range(0, inner, depth):
            stop = min(start + depth, inner)
            if first_unit == 0 or depth < inner:
                cuda.syncthreads()
                _gather_signal(plan, state, table, signal, layer, back, start, stop, active, x)
                cuda.syncthreads()
            if works:
                weight, quad = bias + 4 * hidden * (1 + start) + unit, first_quad
                for _ in range(stop - start):
                    w, low, high = _weights_of(weights, weight, hidden), 4 * quad, 4 * quad + 4
                    s0 = _add_products(s0, signal[index(low)], w)
                    s1 = _add_products(s1, signal[index(low + 1)], w)
                    s2 = _add_products(s2, signal[index(low + 2)], w)
                    s3 = _add_products(s3, signal[index(low + 3)], w)
                    s4 = _add_products(s4, signal[index(high)], w)
                    s5 = _add_products(s5, signal[index(high + 1)], w)
                    s6 = _add_products(s6, signal[index(high + 2)], w)
                    s7 = _add_products(s7, signal[index(high + 3)], w)
                    weight += 4 * hidden
                    quad += quads
        if works:
            for stream in range(min(at.STREAMS, active - at.STREAMS * group)):
                own = (s0, s1, s2, s3, s4, s5, s6, s7)[stream]
                _write_cell(plan, state, table, of_layer, unit, at.STREAMS * group + stream, back, depth < inner, own)
    cuda.syncthreads()
    if depth < inner:
        _move_new_h(plan, state, table, of_layer, back, active)


@device_function
def _gather_signal(
    plan: Array, state: Array, table: Array, signal: Array, layer: int, back: int, start: int, stop: int, active: int,
    x: Array,
) -> None:  # fmt: skip
    """Values [start, stop) of each stream's inputs and h, to shared memory. A warp reads the row of one stream."""
    thread, warps = cuda.threadIdx.x, cuda.blockDim.x // WARP
    tile, window, inputs = plan[at.TILE], plan[at.WINDOW], plan[at.INPUTS]
    of_layer = at.PLAN_WORDS + at.LAYER_WORDS * layer
    n_x, h_at = plan[of_layer + at.LAYER_INPUTS], plan[of_layer + at.LAYER_H]
    below = plan[of_layer - at.LAYER_WORDS + at.LAYER_H] if layer > 0 else 0
    target = 2 * at.TABLES * tile - start * (tile + at.PAD)
    for stream in range(thread // WARP, active, warps):
        own = table[index(at.STATE_AT * tile + stream)]
        event = table[index(at.EVENT * tile + stream)]
        ring = 0
        if window > 0:
            place = table[index(at.NEWEST * tile + stream)] - (back - 1)
            if place < 0:
                place += window
            ring = table[index(at.ROW_AT * tile + stream)] + _RING + inputs * place
        for k in range(start + thread % WARP, stop, WARP):
            if k >= n_x:
                value = state[index(own + h_at + k - n_x)]
            elif layer > 0:
                value = state[index(own + below + k)]
            elif window > 0:
                value = state[index(ring + k)]
            else:
                value = x[index(event), index(k)]
            signal[index(target + k * (tile + at.PAD) + stream)] = value


@device_function
def _weights_of(weights: Array, first: int, hidden: int) -> OfGates:
    """Those of the four gates."""
    return (
        weights[index(first)], weights[index(first + hidden)], weights[index(first + 2 * hidden)],
        weights[index(first + 3 * hidden)],
    )  # fmt: skip


@device_function
def _add_products(sums: OfGates, value: float, w: OfGates) -> OfGates:
    return (
        _fma(value, w[0], sums[0]),
        _fma(value, w[1], sums[1]),
        _fma(value, w[2], sums[2]),
        _fma(value, w[3], sums[3]),
    )


@device_function
def _write_cell(
    plan: Array, state: Array, table: Array, of_layer: int, unit: int, place: int, back: int, apart: bool,
    sums: OfGates,
) -> None:  # fmt: skip
    """c' and h' of one unit of one stream; h' goes beside the row where others still have to read h."""
    tile = plan[at.TILE]
    if table[index(at.COUNT * tile + place)] >= back:
        own = table[index(at.STATE_AT * tile + place)]
        cell = index(own + plan[of_layer + at.LAYER_C] + unit)
        c = cell_state(MACHINE, sums[0], sums[1], sums[2], state[cell])
        state[cell] = c
        target = own + plan[of_layer + at.LAYER_H]
        if apart:
            target = plan[at.SCRATCH] + plan[at.SCRATCH_ROW] * (tile * cuda.blockIdx.x + place) + plan[at.NEXT_H]
        state[index(target + unit)] = hidden_state(MACHINE, sums[3], c)


@device_function
def _move_new_h(plan: Array, state: Array, table: Array, of_layer: int, back: int, active: int) -> None:
    thread, warps = cuda.threadIdx.x, cuda.blockDim.x // WARP
    tile = plan[at.TILE]
    for stream in range(thread // WARP, active, warps):
        if table[index(at.COUNT * tile + stream)] >= back:
            source = plan[at.SCRATCH] + plan[at.SCRATCH_ROW] * (tile * cuda.blockIdx.x + stream) + plan[at.NEXT_H]
            target = table[index(at.STATE_AT * tile + stream)] + plan[of_layer + at.LAYER_H]
            for unit in range(thread % WARP, plan[of_layer + at.LAYER_HIDDEN], WARP):
                state[index(target + unit)] = state[index(source + unit)]
    cuda.syncthreads()


@device_function
def _write_outputs(
    plan: Array, weights: Array, state: Array, table: Array, signal: Array, active: int, y: Array
) -> None:
    """y = head_weight h + head_bias, h being the last layer's: partial sums by 16 threads, added in halves by one."""
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    tile, outputs = plan[at.TILE], plan[at.OUTPUTS]
    of_layer = at.PLAN_WORDS + at.LAYER_WORDS * (plan[at.LAYERS] - 1)
    hidden, h_at = plan[of_layer + at.LAYER_HIDDEN], plan[of_layer + at.LAYER_H]
    sums_at = 2 * at.TABLES * tile + plan[at.DEPTH] * (tile + at.PAD)
    for output in range(outputs):
        for item in range(thread, at.HEAD_LANES * active, threads):
            h = table[index(at.STATE_AT * tile + item // at.HEAD_LANES)] + h_at
            total = np.float32(0.0)
            for k in range(item % at.HEAD_LANES, hidden, at.HEAD_LANES):
                total = _fma(state[index(h + k)], weights[index(plan[at.HEAD] + output * hidden + k)], total)
            signal[index(sums_at + item)] = total
        cuda.syncthreads()
        for stream in range(thread, active, threads):
            own = sums_at + at.HEAD_LANES * stream
            lanes = at.HEAD_LANES
            while lanes > 1:
                lanes //= 2
                for lane in range(lanes):
                    signal[index(own + lane)] = _add(signal[index(own + lane)], signal[index(own + lane + lanes)])
            bias = weights[index(plan[at.HEAD_BIAS] + output)]
            y[index(table[index(at.EVENT * tile + stream)]), index(output)] = _add(signal[index(own)], bias)
        cuda.syncthreads()


@device_kernel
def read_rows(words: Array, row: int, slots: Array, rows: Array) -> None:
    """rows int64 [N, `row`] = those of `slots` int32 [N] among `words`; a block a row."""
    for n in range(cuda.blockIdx.x, len(slots), cuda.gridDim.x):
        for k in range(cuda.threadIdx.x, row, cuda.blockDim.x):
            rows[index(n), index(k)] = words[index(slots[index(n)] * row + k)]


@device_kernel
def write_rows(words: Array, row: int, slots: Array, rows: Array) -> None:
    """The other way round."""
    for n in range(cuda.blockIdx.x, len(slots), cuda.gridDim.x):
        for k in range(cuda.threadIdx.x, row, cuda.blockDim.x):
            words[index(slots[index(n)] * row + k)] = rows[index(n), index(k)]


@device_kernel
def clear_rows(words: Array, row: int, slots: Array) -> None:
    """The rows of `slots` int32 [N] become those of new streams."""
    for n in range(cuda.blockIdx.x, len(slots), cuda.gridDim.x):
        for k in range(cuda.threadIdx.x, row, cuda.blockDim.x):
            words[index(slots[index(n)] * row + k)] = 0


@device_kernel
def clear_all(words: Array) -> None:
    for k in range(cuda.grid(1), len(words), cuda.gridsize(1)):
        words[index(k)] = 0
