"""The cell's arithmetic in training, layer by layer; whole networks are judged in tests/training."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.kernels import bptt
from tests.training import oracle

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
PADDING = 3
"""Columns of NaN behind every row that may have some."""
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def gates_of(z: NDArray[Any], c: NDArray[Any]) -> list[NDArray[Any]]:
    """i, f, g, o, c', tanh(c'), h' of pre-activations z (4, N) and cell states c (N,), as a layer with no weights."""
    dtype, units = z.dtype, len(c)
    joined, weight = np.zeros((2, 1, 1 + units), dtype), np.zeros((1 + units, 4 * units), dtype)
    gates, tanh_c = np.zeros((1, 1, 4 * units), dtype), np.zeros((1, 1, units), dtype)
    cells = np.zeros((2, 1, units), dtype)
    cells[0] = c
    bptt.layer_forward(joined, weight, z.reshape(-1).copy(), gates, cells, tanh_c)
    return [*gates.reshape(4, units), cells[1, 0], tanh_c[0, 0], joined[1, 0, 1:]]


@DTYPES
@pytest.mark.parametrize("reach", [0.01, 1.0, 12.0])
def test_gates_are_accurate(dtype: Any, reach: float) -> None:
    rng = np.random.default_rng(0)
    z, c = rng.uniform(-reach, reach, (4, 700)).astype(dtype), rng.uniform(-3, 3, 700).astype(dtype)
    found = gates_of(z, c)
    exact = z.astype(np.float64)
    i, f, o = (oracle.sigmoid(exact[gate]) for gate in (0, 1, 3))
    g = np.tanh(exact[2])
    c_next = f * c + i * g
    epsilon = np.finfo(dtype).eps
    for array, true in zip(found[:4], (i, f, g, o), strict=True):
        np.testing.assert_allclose(array, true, rtol=(4 + reach) * epsilon)
    for array, true in zip(found[4:], (c_next, np.tanh(c_next), o * np.tanh(c_next)), strict=True):
        np.testing.assert_allclose(array, true, rtol=(4 + reach) * epsilon, atol=4 * epsilon)


@DTYPES
def test_extreme_gates_saturate(dtype: Any) -> None:
    edges = np.array([-np.finfo(dtype).max, -1e4, -200.0, 0.0, 200.0, 1e4, np.finfo(dtype).max], dtype)
    z = np.array([edges.repeat(7), np.tile(edges, 7), edges.repeat(7), np.tile(edges, 7)])
    found = gates_of(z, np.full(49, 0.5, dtype))
    assert all(np.isfinite(array).all() for array in found)
    for gate in (0, 1, 3):
        np.testing.assert_allclose(found[gate], (np.sign(z[gate]) + 1) / 2, atol=1e-11)
    np.testing.assert_allclose(found[2], np.sign(z[2]), atol=1e-11)


@DTYPES
@pytest.mark.parametrize("gate", range(4))
def test_nan_passes_through(dtype: Any, gate: int) -> None:
    z = np.zeros((4, 21), dtype)
    z[gate, 5] = np.nan
    *_, h = gates_of(z, np.ones(21, dtype))
    assert np.flatnonzero(np.isnan(h)).tolist() == [5]


def test_zero_stays_zero() -> None:
    found = gates_of(np.zeros((4, 21), np.float32), np.zeros(21, np.float32))
    assert [set(array.tolist()) for array in found] == [{0.5}, {0.5}, {0.0}, {0.5}, {0.0}, {0.0}, {0.0}]


def made_layer(dtype: Any, I: int, H: int, T: int, B: int) -> dict[str, NDArray[Any]]:  # noqa: E741
    rng = np.random.default_rng(I + 10 * H)
    padded = ((0, 0), (0, PADDING))
    arrays = {
        "joined": rng.normal(size=(T + 1, B, I + H)),
        "weight": np.pad(rng.normal(size=(I + H, 4 * H)) / np.sqrt(H), padded, constant_values=np.nan),
        "bias": rng.normal(size=4 * H),
        "gates": np.full((T, B, 4 * H + PADDING), np.nan),
        "cells": rng.normal(size=(T + 1, B, H)),
        "tanh_cells": np.zeros((T, B, H)),
        "above": rng.normal(size=(T, B, max(I, H) + 3)),
        "dh": np.zeros((B, H)),
        "dc": np.zeros((B, H)),
        "d_weight": np.zeros((I + H, 4 * H)),
        "d_bias": np.zeros(4 * H),
    }
    return {name: array.astype(dtype) for name, array in arrays.items()}


def forward(a: dict[str, NDArray[Any]]) -> None:
    bptt.layer_forward(a["joined"], a["weight"], a["bias"], a["gates"], a["cells"], a["tanh_cells"])


def backward(a: dict[str, NDArray[Any]], with_inputs: bool) -> None:
    hidden = a["dh"].shape[1]
    weight, matrices = a["weight"][:, : 4 * hidden], []
    for part in (weight[-hidden:], weight[:-hidden]):
        matrices.append(np.full((4 * hidden, len(part) + PADDING), np.nan, part.dtype))
        bptt.transpose(part, matrices[-1])
    names = ("gates", "cells", "tanh_cells", "above", "dh", "dc", "d_weight", "d_bias")
    bptt.layer_backward(a["joined"], a["weight"], *matrices, *(a[name] for name in names), with_inputs)


@DTYPES
@pytest.mark.parametrize(("I", "H", "T", "B"), [(1, 1, 1, 1), (5, 19, 7, 3), (1, 50, 9, 16), (30, 4, 40, 11)])
def test_a_layer_is_the_oracles(dtype: Any, I: int, H: int, T: int, B: int) -> None:  # noqa: E741
    a = made_layer(dtype, I, H, T, B)
    exact = {name: array.astype(np.float64) for name, array in a.items()}
    weights = {
        "layers.0.weight_ih": exact["weight"][:I, : 4 * H].T,
        "layers.0.weight_hh": exact["weight"][I:, : 4 * H].T,
        "layers.0.bias": exact["bias"],
    }
    signal = list(exact["joined"][:T, :, :I])
    tape, hs, c_last = oracle.layer_forward(weights, 0, signal, exact["joined"][0, :, I:], exact["cells"][0])
    by_name = {name: np.zeros_like(array) for name, array in weights.items()}
    d_x, d_h, d_c = oracle.layer_backward(weights, by_name, 0, tape, list(exact["above"][:, :, :H]))
    forward(a)
    backward(a, with_inputs=True)
    d_weight = np.concatenate([by_name["layers.0.weight_ih"], by_name["layers.0.weight_hh"]], axis=1).T
    for found, true in (
        (a["joined"][1:, :, I:], np.stack(hs)),
        (a["cells"][-1], c_last),
        (a["d_weight"], d_weight),
        (a["d_bias"], by_name["layers.0.bias"]),
        (a["above"][:, :, :I], np.stack(d_x)),
        (a["dh"], d_h),
        (a["dc"], d_c),
    ):
        assert np.abs(found - true).max() <= TOLERANCE[dtype] * max(1.0, np.abs(true).max())


def test_the_derivative_of_the_final_state_flows_in_and_gradients_add_up() -> None:
    """A sequence in two pieces, the second's derivatives handed to the first, is the sequence in one."""
    T, H = 8, 13
    whole = made_layer(np.float64, 3, H, T, 5)
    forward(whole)
    pieces = []
    for part in (slice(0, T // 2), slice(T // 2, T)):
        piece = {name: array.copy() for name, array in whole.items()}
        for name in ("gates", "tanh_cells", "above"):
            piece[name] = whole[name][part].copy()
        for name in ("joined", "cells"):
            piece[name] = whole[name][part.start : part.stop + 1].copy()
        pieces.append(piece)
    backward(whole, with_inputs=False)
    first, second = pieces
    backward(second, with_inputs=False)
    first |= {name: second[name].copy() for name in ("dh", "dc", "d_weight", "d_bias")}
    backward(first, with_inputs=False)
    for name in ("dh", "dc", "d_weight", "d_bias"):
        np.testing.assert_allclose(first[name], whole[name], rtol=1e-12, atol=1e-12)


def test_without_inputs_what_came_from_above_is_left() -> None:
    a, b = made_layer(np.float32, 3, 13, 4, 5), made_layer(np.float32, 3, 13, 4, 5)
    for arrays, with_inputs in ((a, True), (b, False)):
        forward(arrays)
        backward(arrays, with_inputs)
    assert b["above"].tobytes() == made_layer(np.float32, 3, 13, 4, 5)["above"].tobytes()
    assert all(a[name].tobytes() == b[name].tobytes() for name in ("dc", "d_weight", "d_bias"))
