"""Weights in the order in which the step kernel reads them.

A layer's weights come as PyTorch keeps them: rows of weight_ih (4H, I), weight_hh (4H, H) and bias (4H,) are the gates
i, f, g, o of H units each. Packed, they are cut into blocks of units (kernels.layout.blocks); a block holds, float32 in
reading order,

    bias [4][width], inputs [I][4][width], recurrent [H][4][width]

with zeros for units past H. Gates i, f, o are multiplied by -log2(e), gate g by 2 log2(e), in float64 and rounded once:
the accumulated sums are then the base-2 exponents that kernels.cell works with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.kernels.cell import LOG2E
from streamlstm.kernels.layout import FLOAT, GATES, LINE, aligned_zeros, blocks, padded, round_up

Float32 = NDArray[np.float32]
LayerWeights = tuple[Float32, Float32, Float32]  # weight_ih, weight_hh, bias

GATE_FACTORS = np.array([-LOG2E, -LOG2E, 2.0 * LOG2E, -LOG2E])
_SLACK = 1.01  # rounding of a sum of n terms: (1 + 2^-24)^n, n < 100,000; and |h| <= 1 + 2^-20
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Packed:
    """One buffer of packed weights, uint8 on a 64-byte boundary, and the offsets in it.

    block_offsets: per layer, per block; head_weight: float32 [O][P of the last layer, rounded up to 16]; head_bias [O].
    """

    buffer: NDArray[np.uint8]
    block_offsets: tuple[tuple[int, ...], ...]
    head_weight: int
    head_bias: int


def scaled(weights: LayerWeights) -> tuple[Float32, Float32, Float32]:
    """weight_ih (4, H, I), weight_hh (4, H, H) and bias (4, H), times the gate factors."""
    hidden = weights[1].shape[1]
    by_gate = [array.reshape(GATES, hidden, -1) * GATE_FACTORS[:, None, None] for array in weights]
    with np.errstate(over="ignore"):  # to infinity, which `input_limit` refuses
        ih, hh, bias = [array.astype(np.float32) for array in by_gate]
    return ih, hh, bias[:, :, 0]


def pack_block(weights: LayerWeights, unit: int, width: int) -> Float32:
    """float32 [1 + I + H][4][width]: one block of a layer whose `scaled` weights are given."""
    ih, hh, bias = weights
    units = slice(unit, min(unit + width, ih.shape[1]))
    packed = np.zeros((1 + ih.shape[2] + hh.shape[2], GATES, width), np.float32)
    own = packed[:, :, : units.stop - units.start]
    own[0] = bias[:, units]
    own[1 : 1 + ih.shape[2]] = ih[:, units].transpose(2, 0, 1)
    own[1 + ih.shape[2] :] = hh[:, units].transpose(2, 0, 1)
    return packed


def pack(layers: Sequence[LayerWeights], head_weight: Float32, head_bias: Float32, widest: int) -> Packed:
    """Pack a model for blocks of at most `widest` units (16, or 8 on CPUs with few registers)."""
    pieces: list[Float32] = []
    offsets: list[list[int]] = []
    for layer in layers:
        by_gate = scaled(layer)
        own = [pack_block(by_gate, unit, width) for unit, width in blocks(layer[1].shape[1], widest)]
        start = sum(round_up(piece.nbytes, LINE) for piece in pieces)
        offsets.append([start + sum(round_up(piece.nbytes, LINE) for piece in own[:k]) for k in range(len(own))])
        pieces += own
    hidden = layers[-1][1].shape[1]
    head = np.zeros((len(head_bias), round_up(padded(hidden), 16)), np.float32)
    head[:, :hidden] = head_weight
    pieces += [head, head_bias.astype(np.float32)]
    starts = np.cumsum([0, *(round_up(piece.nbytes, LINE) for piece in pieces)])
    buffer = aligned_zeros(int(starts[-1]))
    for start, piece in zip(starts, pieces, strict=False):
        buffer[start : start + piece.nbytes] = np.frombuffer(piece.tobytes(), np.uint8)
    return Packed(buffer, tuple(map(tuple, offsets)), int(starts[-3]), int(starts[-2]))


def packed_bytes(inputs: int, hidden: Sequence[int], outputs: int) -> int:
    """Bytes of the buffer that `pack` makes with blocks of 16, without making it."""
    layer_inputs = (inputs, *hidden)
    total = 0
    for i, h in zip(layer_inputs, hidden, strict=False):
        total += sum(round_up(FLOAT * GATES * width * (1 + i + h), LINE) for _, width in blocks(h))
    head = round_up(FLOAT * outputs * round_up(padded(hidden[-1]), 16), LINE)
    return total + head + round_up(FLOAT * outputs, LINE)


def input_limit(layers: Sequence[LayerWeights], head_weight: Float32, head_bias: Float32) -> float:
    """The largest |x| with which no intermediate of a step can overflow float32, however the stream went before.

    Proof. Let W, R, b be the packed (scaled) weights of one gate and unit. A gate sum is one FMA chain, so every
    partial sum is within sum|W||x| + sum|R||h| + |b|, times (1 + 2^-24)^n for the roundings of its n < 100,000 terms;
    |h| <= 1 + 2^-20 (kernels.cell). Both effects are within the factor 1.01. Lower bound on the room for x:

        1.01 (sum|W| |x| + sum|R| + |b|) <= largest float32

    for each gate and unit of the first layer. In the layers above, the input is the h below, so the same sum with
    |x| = 1 has to fit, whatever x is. From the sums on, kernels.cell clamps every exponent before using it, and bounds
    all products. The head adds 16 partial sums in halves: within sum|w| |h| + |b| in any order.

    Raises ModelFileError when the weights leave no room at all.
    """
    limit = _LARGEST
    for k, layer in enumerate(layers):
        ih, hh, bias = (np.abs(array.astype(np.float64)) for array in scaled(layer))
        recurrent = hh.sum(axis=2) + bias
        own = ih.sum(axis=2)
        if k == 0:
            room = _LARGEST / _SLACK - recurrent
            with np.errstate(divide="ignore"):
                limit = float(np.min(room / own, initial=_LARGEST))
        else:
            room = _LARGEST / _SLACK - recurrent - own
        if not np.min(room) > 0:
            raise ModelFileError(f"layers.{k}", "weights so large that a step could overflow float32")
    outputs = np.abs(head_weight.astype(np.float64)).sum(axis=1) + np.abs(head_bias.astype(np.float64))
    if not np.max(outputs) * _SLACK <= _LARGEST:
        raise ModelFileError("head", "weights so large that a forecast could overflow float32")
    return float(np.nextafter(np.float32(limit), np.float32(0)))
