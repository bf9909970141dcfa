"""The micro-kernel: one block of hidden units of one layer, for a handful of streams, wholly in registers.

For each of up to 6 streams it computes the four gates of a block of units as one FMA chain per gate and unit,

    bias, then + W_ih[., k] x[k] for k = 0 .. I - 1, then + W_hh[., k] h[k] for k = 0 .. H - 1,

and then c' (in place) and h' (to a scratch row: other blocks still read h). 6 streams x 4 gates x 16 units are 24
accumulators of 16 lanes, 4 weight vectors and a broadcast: 29 of the 32 registers of AVX-512, so that each weight
vector that is loaded feeds 6 FMAs. The chain doesn't depend on how many streams share the registers, nor on the
block's width: that is why a stream's bits don't depend on its neighbours.

Packed weights of a block of `width` units, float32, in reading order (kernels.packing makes them):

    bias [4][width], inputs [I][4][width], recurrent [H][4][width]          gates i, f, g, o

A block of 4 units holds its four gates in one vector of 16 lanes; other widths use one vector per gate.
"""

from itertools import groupby
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streamlstm.kernels.cell import cell_state, hidden_state
from streamlstm.kernels.vector import I64, Builder, SideBySide, Value, Vector, function_of, has_wide_vectors, int64

GATES = 4
STREAMS = (6, 4, 2, 1)  # streams per micro-kernel, largest first
WIDTHS = (16, 8, 4)  # units per block
PACKED_WIDTH = 4

_ARGUMENTS = ("x_at", "h_at", "n_x", "n_h", "weights", "c_offset", "out", "out_stride")
_I64_POINTER = ir.PointerType(I64)


def _accumulate(
    v: Vector, rows: list[Value], count: Value, weights: Value, sums: list[list[Value]]
) -> tuple[list[list[Value]], Value]:
    """sums[stream][vector] += rows[stream][k] * W[k][vector] for k in range(count), in that order.

    `rows` and `weights` are addresses. Returns the sums and the address after the weights read.
    """
    builder = v.builder
    vectors = len(sums[0])
    before = builder.block
    loop = builder.append_basic_block("accumulate")
    after = builder.append_basic_block("accumulated")
    builder.cbranch(builder.icmp_signed(">", count, int64(0)), loop, after)

    builder.position_at_end(loop)
    k, at = builder.phi(I64), builder.phi(I64)
    running = [[builder.phi(v.type) for _ in range(vectors)] for _ in rows]
    w = [v.load(at, vector * v.bytes) for vector in range(vectors)]
    offset = builder.shl(k, int64(2))
    updated = []
    for row, own in zip(rows, running, strict=True):
        value = v.broadcast(builder.add(row, offset))
        updated.append([v.fma(value, w[vector], own[vector]) for vector in range(vectors)])
    k_next, at_next = builder.add(k, int64(1)), builder.add(at, int64(vectors * v.bytes))
    builder.cbranch(builder.icmp_signed("<", k_next, count), loop, after)
    _join(k, (int64(0), before), (k_next, loop))
    _join(at, (weights, before), (at_next, loop))
    for own, first, then in zip(running, sums, updated, strict=True):
        for vector in range(vectors):
            _join(own[vector], (first[vector], before), (then[vector], loop))

    builder.position_at_end(after)
    end = builder.phi(I64)
    _join(end, (weights, before), (at_next, loop))
    result = []
    for first, then in zip(sums, updated, strict=True):
        joined = [builder.phi(v.type) for _ in range(vectors)]
        for vector in range(vectors):
            _join(joined[vector], (first[vector], before), (then[vector], loop))
        result.append(joined)
    return result, end


def _join(phi: Value, *incoming: tuple[Value, Value]) -> None:
    for value, block in incoming:
        phi.add_incoming(value, block)


def _emit(builder: Builder, streams: int, width: int, arguments: list[Value]) -> None:
    """The body of one micro-kernel; see `advance_block` for the arguments."""
    x_at, h_at, n_x, n_h, weights, c_offset, out, out_stride = arguments
    packed = width == PACKED_WIDTH
    units = Vector(builder, width)
    v = Vector(builder, GATES * width) if packed else units
    vectors = 1 if packed else GATES

    def table(base: Value) -> list[Value]:
        entries = [builder.add(base, int64(8 * stream)) for stream in range(streams)]
        return [builder.load(builder.inttoptr(entry, _I64_POINTER)) for entry in entries]

    x_rows, h_rows = table(x_at), table(h_at)
    bias = [v.load(weights, vector * v.bytes) for vector in range(vectors)]
    sums = [list(bias) for _ in range(streams)]
    after_bias = builder.add(weights, int64(vectors * v.bytes))
    sums, after_inputs = _accumulate(v, x_rows, n_x, after_bias, sums)
    sums, _ = _accumulate(v, h_rows, n_h, after_inputs, sums)
    gates = [[v.part(own[0], gate * width, width) for gate in range(GATES)] for own in sums] if packed else sums
    _activate(units, gates, [builder.add(row, c_offset) for row in h_rows], out, out_stride)


def _in_twos(groups: list[range]) -> list[list[range]]:
    return [groups[first : first + 2] for first in range(0, len(groups), 2)]


def _activate(units: Vector, gates: list[list[Value]], c_rows: list[Value], out: Value, out_stride: Value) -> None:
    """c' and h' from gates[stream][gate]. Small blocks of several streams fill one vector, so that what is dear is done
    once for them all; of whole vectors two are side by side.
    """
    builder, width, streams = units.builder, units.lanes, range(len(gates))
    together = max(1, (16 if has_wide_vectors() else 8) // width)
    groups = [streams[first : first + together] for first in streams[::together]]
    pairs = [pair for _, equal in groupby(groups, len) for pair in _in_twos(list(equal))]
    cells: list[tuple[Vector, list[Value]]] = []  # c' of all before h' of any: a tenth faster than one by one
    for pair in pairs:
        v = Vector(builder, width * len(pair[0]))
        i, f, g = ([v.joined([gates[stream][gate] for stream in group]) for group in pair] for gate in range(3))
        c = [v.joined([units.load(c_rows[stream]) for stream in group]) for group in pair]
        cells.append((v, cell_state(SideBySide(v), i, f, g, c)))
        for group, value in zip(pair, cells[-1][1], strict=True):
            for k, stream in enumerate(group):
                units.store(v.part(value, k * width, width), c_rows[stream])
    for pair, (v, c) in zip(pairs, cells, strict=True):
        o = [v.joined([gates[stream][3] for stream in group]) for group in pair]
        for group, value in zip(pair, hidden_state(SideBySide(v), o, c), strict=True):
            for k in range(len(group)):
                units.store(v.part(value, k * width, width), out)
                out = builder.add(out, out_stride)


def _micro_kernel(module: ir.Module, streams: int, width: int) -> Value:
    name = f"streamlstm_block_{streams}_streams_{width}_units"
    return function_of(module, name, len(_ARGUMENTS), lambda builder, given: _emit(builder, streams, width, given))


@intrinsic  # type: ignore[untyped-decorator]
def advance_block(
    typingctx: Any, width: Any, streams: Any, x_at: Any, h_at: Any, n_x: Any, n_h: Any, weights: Any, c_offset: Any,
    out: Any, out_stride: Any,
) -> Any:  # fmt: skip
    """Advance one block of units of one layer for `streams` streams. All arguments are int64; nothing is returned.

    width          units of the block, one of WIDTHS
    streams        one of STREAMS
    x_at, h_at     addresses of tables: per stream the address of its inputs [n_x] and of its h [n_h]; read
    n_x, n_h       the layer's inputs and hidden size
    weights        address of the block's packed weights
    c_offset       bytes from a stream's h to the c of the block's first unit; c is updated in place
    out            address where h' of the block goes for the first stream; `out_stride` bytes on for each next one
    """

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        chosen_width, chosen_streams, *rest = arguments
        chosen = builder.add(builder.shl(chosen_width, int64(3)), chosen_streams)
        done = builder.append_basic_block("advanced")
        switch = builder.switch(chosen, done)
        for units in WIDTHS:
            for count in STREAMS:
                case = builder.append_basic_block(f"advance_{count}_{units}")
                switch.add_case(int64((units << 3) + count), case)
                builder.position_at_end(case)
                builder.call(_micro_kernel(builder.module, count, units), rest)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(*[types.int64] * (2 + len(_ARGUMENTS))), codegen


@intrinsic  # type: ignore[untyped-decorator]
def dot_in_halves(typingctx: Any, a: Any, b: Any, count: Any) -> Any:
    """dot_in_halves(a, b, count) -> float32: the dot product of `count` float32 values (a multiple of 16, at least 16).

    a and b are addresses. 16 running sums over k, then added in halves: an order that never changes.
    """

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        a, b, count = arguments
        v = Vector(builder, 16)
        before = builder.block
        loop = builder.append_basic_block("dot")
        after = builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, running = builder.phi(I64), builder.phi(v.type)
        offset = builder.shl(k, int64(2))
        updated = v.fma(v.load(builder.add(a, offset)), v.load(builder.add(b, offset)), running)
        k_next = builder.add(k, int64(v.lanes))
        builder.cbranch(builder.icmp_signed("<", k_next, count), loop, after)
        _join(k, (int64(0), before), (k_next, loop))
        _join(running, (v.constant(0.0), before), (updated, loop))
        builder.position_at_end(after)
        return v.sum_in_halves(updated)

    return types.float32(types.int64, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def copy_floats(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
    """copy_floats(target, source, count): copy `count` float32 values (a multiple of 4) between two addresses."""

    def codegen(context: Any, builder: Builder, signature: Any, arguments: Any) -> Value:
        target, source, count = arguments
        start = int64(0)
        for lanes in (16, 4):
            v = Vector(builder, lanes)
            stop = builder.and_(count, int64(-lanes))
            with cgutils.for_range_slice(builder, start, stop, int64(lanes), I64) as (k, _):
                offset = builder.shl(k, int64(2))
                v.store(v.load(builder.add(source, offset)), builder.add(target, offset))
            start = stop
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
