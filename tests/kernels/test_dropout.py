"""Masks of dropout: the numbers of SplitMix64, by position."""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.dropout import draw_mask

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(word: int) -> int:
    """SplitMix64's finaliser, in Python's integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


def drawn(
    seed: int = 1, step: int = 0, layer: int = 0, drop: float = 0.3, shape: tuple[int, ...] = (9, 40, 50)
) -> NDArray:
    mask = np.full(shape, np.nan, np.float32)
    draw_mask(seed, step, layer, shape[1], 0, drop, mask)
    return mask


def test_the_finaliser_is_splitmix64s() -> None:
    """The first outputs of the reference implementation from state 1234567."""
    outputs = [mixed(1234567 + GOLDEN * n & WORD) for n in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_element_by_its_position() -> None:
    seed, step, layer, drop = -3, 11, 2, 0.25
    mask = drawn(seed, step, layer, drop, (3, 4, 5))
    key = mixed(mixed(seed + GOLDEN & WORD) ^ step)
    key = mixed(key ^ (layer + GOLDEN))
    for place, value in enumerate(mask.ravel()):
        dropped = mixed(key + GOLDEN * (place + 1) & WORD) >> 32 < drop * 2**32
        assert value == (0.0 if dropped else np.float32(1 / (1 - drop)))


def test_a_part_of_the_batch_gets_its_part_of_the_mask() -> None:
    whole, part = drawn(), np.empty((9, 7, 50), np.float32)
    draw_mask(1, 0, 0, 40, 21, 0.3, part)
    assert (part == whole[:, 21:28]).all()


def test_rates_and_means() -> None:
    for drop in (0.0, 0.1, 0.5, 0.9):
        mask = drawn(drop=drop, shape=(50, 40, 50)).astype(np.float64)
        assert abs(np.mean(mask == 0.0) - drop) < 0.005
        assert abs(mask.mean() - 1.0) < 0.03


def test_other_seeds_steps_and_layers_draw_otherwise() -> None:
    masks = [drawn(), drawn(seed=2), drawn(step=1), drawn(layer=1), drawn(seed=0, step=1)]
    for k, mask in enumerate(masks):
        for other in masks[:k]:
            agreement = np.mean((mask == 0.0) == (other == 0.0))
            assert abs(agreement - (0.3**2 + 0.7**2)) < 0.02
