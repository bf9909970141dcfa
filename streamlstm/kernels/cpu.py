"""One LSTM step per event, for a batch of events: the CPU twin.

Events go in waves (kernels.waves), waves in tiles of up to 48 streams, and a tile layer by layer, block by block: all
streams of the tile take a block's weights before the next block's are touched. Meanwhile the next tile's rows are
prefetched, a few cache lines at a time: in a burst they would queue behind each other.

A carried state is stepped in its row; one that is stored in 16 bits is widened into scratch, stepped there and narrowed
back (kernels.half). A window's state lives in scratch: T steps from zero over the ring of inputs. All go through the
same loop over layers and blocks, hence the same bits per step.

Everything is passed by address: see kernels.layout for the words of `plan` and `work`.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels import layout as at
from streamlstm.kernels.block import advance_block, copy_floats, dot_in_halves
from streamlstm.kernels.compile import compiled, inlined
from streamlstm.kernels.half import narrow, widen
from streamlstm.kernels.layout import FLOAT, FLOAT32, LINE, TILE, WORD
from streamlstm.kernels.memory import load_float32, load_word, prefetch, store_float32, store_word
from streamlstm.kernels.waves import order_by_wave

BAD_SHAPE = -2  # beside waves.BAD_SLOT
STEP_SIGNATURE = "int64(int64, int64, int64, int64, int64, int64[::1], float32[:, ::1], float32[:, ::1])"


@compiled(STEP_SIGNATURE)
def step(
    plan: int,
    work: int,
    share: int,
    shares: int,
    n: int,
    slots: NDArray[np.int64],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> int:
    """Advance the streams of one share by their events of a batch, in order, and write each event's output.

    plan, work     addresses of the plan and of this share's workspace; work must hold n events
    slots          int64 [>= n]: row of each event's stream, negative to skip the event; read
    x              float32 [>= n, I], |x| within the model's input limit; read
    y              float32 [>= n, O]; rows of the share's events are written, others left alone

    Returns the number of waves, BAD_SLOT or BAD_SHAPE; after the last two nothing was changed by this share.
    """
    inputs, outputs = load_word(plan, at.INPUTS), load_word(plan, at.OUTPUTS)
    if min(len(slots), len(x), len(y)) < n or x.shape[1] != inputs or y.shape[1] != outputs:
        return BAD_SHAPE
    order, bounds = load_word(work, at.ORDER), load_word(work, at.BOUNDS)
    waves = order_by_wave(
        n, slots, load_word(plan, at.STREAMS), share, shares,
        load_word(work, at.SEEN), load_word(plan, at.REPEATS), load_word(work, at.WAVE_OF_EVENT), order, bounds,
    )  # fmt: skip
    if waves <= 0:
        return waves
    x_at, y_at = x.ctypes.data, y.ctypes.data
    window, dtype = load_word(plan, at.WINDOW), load_word(plan, at.DTYPE)
    rows = load_word(work, at.ROW_TABLE)
    rows_ahead = rows + WORD * TILE

    wave, first, wave_end, last = 0, 0, load_word(bounds, 1), load_word(bounds, waves)
    tile = min(TILE, wave_end)
    _find_rows(plan, order, slots, 0, tile, rows)
    _prefetch_lines(rows, 0, tile, 0, load_word(plan, at.STATE_BYTES))
    while first < last:
        first_ahead = first + tile
        if first_ahead == wave_end and first_ahead < last:
            wave += 1
            wave_end = load_word(bounds, wave + 1)
        tile_ahead = min(TILE, wave_end - first_ahead)
        _find_rows(plan, order, slots, first_ahead, tile_ahead, rows_ahead)
        if window == 0:
            for stream in range(tile):
                event = load_word(order, first + stream)
                store_word(load_word(work, at.X_TABLE), stream, x_at + 4 * inputs * event)
                store_word(load_word(work, at.STATE_TABLE), stream, load_word(rows, stream))
            if dtype != FLOAT32:
                _widen_rows(plan, work, tile, rows, dtype)
        else:
            _push_inputs(plan, work, order, first, tile, rows, x_at)
        for back in range(max(window, 1), 0, -1):  # steps left, this one included
            active, ahead = tile, tile_ahead
            if window != 0:
                active = _enter_window(plan, work, tile, rows, back)
                ahead = tile_ahead if back == 1 else 0
            _advance_layers(plan, work, active, rows_ahead, ahead)
        _write_outputs(plan, work, order, first, tile, y_at)
        if dtype != FLOAT32:
            _narrow_rows(plan, work, tile, rows, dtype)
        first, tile = first_ahead, tile_ahead
        rows, rows_ahead = rows_ahead, rows
    return waves


@inlined
def _find_rows(plan: int, order: int, slots: NDArray[np.int64], first: int, tile: int, rows: int) -> None:
    """rows[stream] = address of the row of event order[first + stream]."""
    arena, row_bytes = load_word(plan, at.ARENA), load_word(plan, at.ROW_BYTES)
    for stream in range(tile):
        store_word(rows, stream, arena + row_bytes * slots[load_word(order, first + stream)])


@inlined
def _prefetch_lines(rows: int, first: int, stop: int, begin: int, end: int) -> None:
    """Ask for bytes [begin, end) of the rows of streams [first, stop)."""
    for offset in range(begin, end, LINE):
        for stream in range(first, stop):
            prefetch(load_word(rows, stream) + offset)


@inlined
def _widen_rows(plan: int, work: int, tile: int, rows: int, dtype: int) -> None:
    """Put h and c of each stream into the scratch as float32, and their addresses into STATE_TABLE."""
    state, state_bytes = load_word(work, at.STATE), load_word(plan, at.CARRIED_BYTES)
    for stream in range(tile):
        widen(dtype, state, load_word(rows, stream), state_bytes // FLOAT)
        store_word(load_word(work, at.STATE_TABLE), stream, state)
        state += state_bytes


@inlined
def _narrow_rows(plan: int, work: int, tile: int, rows: int, dtype: int) -> None:
    """Put h and c of each stream back into its row."""
    state, state_bytes = load_word(work, at.STATE), load_word(plan, at.CARRIED_BYTES)
    for stream in range(tile):
        narrow(dtype, load_word(rows, stream), state, state_bytes // FLOAT)
        state += state_bytes


@inlined
def _advance_layers(plan: int, work: int, active: int, rows_ahead: int, ahead: int) -> None:
    """One step of all layers for `active` streams: their inputs in X_TABLE, their h and c in STATE_TABLE.

    Meanwhile the rows of `ahead` streams of the next tile are prefetched.
    """
    blocks, group = load_word(plan, at.BLOCKS), load_word(plan, at.GROUP)
    lines = (load_word(plan, at.STATE_BYTES) + LINE - 1) // LINE
    lines_each = (lines + blocks - 1) // blocks  # of the rows ahead, during one block
    stride = load_word(plan, at.HIDDEN_STRIDE)
    x_table, h_table = load_word(work, at.X_TABLE), load_word(work, at.H_TABLE)
    state_table = load_word(work, at.STATE_TABLE)
    hidden = load_word(work, at.HIDDEN)
    layer = plan + WORD * at.PLAN_WORDS
    block = layer + WORD * at.LAYER_WORDS * load_word(plan, at.LAYERS)
    done = 0  # blocks of all layers so far
    for _ in range(load_word(plan, at.LAYERS)):
        n_x, n_h = load_word(layer, at.LAYER_INPUTS), load_word(layer, at.LAYER_HIDDEN)
        lanes, h_offset = load_word(layer, at.LAYER_PADDED), load_word(layer, at.LAYER_H_OFFSET)
        for stream in range(active):
            store_word(h_table, stream, load_word(state_table, stream) + h_offset)
        for _ in range(load_word(layer, at.LAYER_BLOCKS)):
            unit, width = load_word(block, at.BLOCK_UNIT), load_word(block, at.BLOCK_WIDTH)
            weights = load_word(block, at.BLOCK_WEIGHTS)
            begin, end = LINE * done * lines_each, LINE * min((done + 1) * lines_each, lines)
            stream = 0
            while stream < active:
                left = min(active - stream, group)
                streams = 6 if left >= 6 else 4 if left >= 4 else 2 if left >= 2 else 1
                _prefetch_lines(rows_ahead, stream, min(stream + streams, ahead), begin, end)
                advance_block(
                    width, streams, x_table + WORD * stream, h_table + WORD * stream, n_x, n_h, weights,
                    4 * (lanes + unit), hidden + stride * stream + 4 * unit, stride,
                )  # fmt: skip
                stream += streams
            block += WORD * at.BLOCK_WORDS
            done += 1
        for stream in range(active):
            h = load_word(h_table, stream)
            copy_floats(h, hidden + stride * stream, lanes)
            store_word(x_table, stream, h)  # the next layer reads this one's h
        hidden += stride * TILE
        layer += WORD * at.LAYER_WORDS


@inlined
def _write_outputs(plan: int, work: int, order: int, first: int, tile: int, y_at: int) -> None:
    """y = head_weight h + head_bias, h being the last layer's, for each stream of the tile."""
    outputs, lanes = load_word(plan, at.OUTPUTS), load_word(plan, at.HEAD_LANES)
    weight, bias = load_word(plan, at.HEAD_WEIGHT), load_word(plan, at.HEAD_BIAS)
    stride = load_word(plan, at.HIDDEN_STRIDE)
    h = load_word(work, at.HIDDEN) + stride * TILE * (load_word(plan, at.LAYERS) - 1)
    for stream in range(tile):
        y_row = y_at + 4 * outputs * load_word(order, first + stream)
        for output in range(outputs):
            dot = dot_in_halves(h, weight + 4 * lanes * output, lanes)
            store_float32(y_row + 4 * output, dot + load_float32(bias + 4 * output))
        h += stride


@inlined
def _push_inputs(plan: int, work: int, order: int, first: int, tile: int, rows: int, x_at: int) -> None:
    """Put each stream's new input into its ring, count it, and note where its window begins.

    The state in scratch is set to zero, ready for the first step.
    """
    inputs, window = load_word(plan, at.INPUTS), load_word(plan, at.WINDOW)
    ring_table = load_word(work, at.RING_TABLE)
    for stream in range(tile):
        row = load_word(rows, stream)
        count = load_word(row, 0)
        slot_in_ring = count % window
        target = row + WORD + 4 * inputs * slot_in_ring
        source = x_at + 4 * inputs * load_word(order, first + stream)
        for k in range(inputs):
            store_float32(target + 4 * k, load_float32(source + 4 * k))
        store_word(row, 0, count + 1)
        store_word(ring_table, stream, slot_in_ring)
    state = load_word(work, at.STATE)
    for word in range(load_word(plan, at.CARRIED_BYTES) // WORD * tile):
        store_word(state, word, 0)


@inlined
def _enter_window(plan: int, work: int, tile: int, rows: int, back: int) -> int:
    """Fill X_TABLE and STATE_TABLE for the step `back - 1` inputs before the newest; returns the active streams.

    A stream takes part from its first input on; those with fewer inputs than the window join later.
    """
    inputs, window = load_word(plan, at.INPUTS), load_word(plan, at.WINDOW)
    state, state_bytes = load_word(work, at.STATE), load_word(plan, at.CARRIED_BYTES)
    ring_table = load_word(work, at.RING_TABLE)
    x_table, state_table = load_word(work, at.X_TABLE), load_word(work, at.STATE_TABLE)
    active = 0
    for stream in range(tile):
        row = load_word(rows, stream)
        if load_word(row, 0) >= back:
            slot_in_ring = load_word(ring_table, stream) - (back - 1)
            if slot_in_ring < 0:
                slot_in_ring += window
            store_word(x_table, active, row + WORD + 4 * inputs * slot_in_ring)
            store_word(state_table, active, state + state_bytes * stream)
            active += 1
    return active
