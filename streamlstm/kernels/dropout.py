"""Masks of inverted dropout (Srivastava et al. 2014), drawn by position from a seed.

Every element has its own number: the output of SplitMix64 (Steele, Lea & Flood 2014) at that element's place. A mask
doesn't depend on how the batch is cut, nor on who draws it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ONE = np.uint64(1)


@embedded
def _mixed(word: np.uint64) -> np.uint64:
    word = (word ^ (word >> np.uint64(30))) * _MIX_1
    word = (word ^ (word >> np.uint64(27))) * _MIX_2
    return word ^ (word >> np.uint64(31))


@compiled
def draw_mask(seed: int, step: int, layer: int, batch: int, first: int, drop: float, mask: NDArray[Any]) -> None:
    """mask [T, B, H]: 0 with probability `drop`, else 1 / (1 - drop); 0 <= drop < 1, to 2^-32.

    seed, step, layer   int64: what the mask is for; another mask for each
    batch, first        sequences of the whole batch, and the place in it of the mask's first sequence
    """
    steps, rows, hidden = mask.shape
    key = _mixed(_mixed(np.uint64(seed) + _GOLDEN) ^ np.uint64(step))
    key = _mixed(key ^ (np.uint64(layer) + _GOLDEN))
    dropped_below = np.uint64(drop * 4294967296.0)
    kept = 1.0 / (1.0 - drop)
    for t in range(steps):
        for row in range(rows):
            place = key + _GOLDEN * np.uint64((t * batch + first + row) * hidden)
            for unit in range(hidden):
                drawn = _mixed(place + _GOLDEN * (np.uint64(unit) + _ONE)) >> np.uint64(32)
                mask[t, row, unit] = 0.0 if drawn < dropped_below else kept
