"""Golden vectors: a short input and its expected output, kept in the model file and re-run at each load.

A model that was read wrongly, by this process or by these kernels on this CPU, can then never start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.forward import run, served
from streamlstm.model.parameters import Float32, Float64, Parameters

STEPS = 24
ABSOLUTE_TOLERANCE = 2e-6
RELATIVE_TOLERANCE = 1e-5
# Float32 sums in another order differ by a small multiple of what one order differs from float64.
ROUNDING_MARGIN = 64.0


@dataclass(frozen=True, eq=False)
class Golden:
    """x: float32 (n, T, I), already scaled; y: float64 (n, T, O), what the model must forecast after each step of x,
    every sequence from a fresh stream. tolerance: float64 (n, T, O), the largest |y' - y| that float32 rounding
    explains."""

    x: Float32
    y: Float64
    tolerance: Float64


def make_golden(parameters: Parameters, window: int = 0, where: str = "model") -> Golden:
    """Golden vectors of these weights, from the equations in float64.

    Raises ModelFileError when a forecast isn't finite in float32: such weights can't be served.
    """
    return golden_of(parameters, window, golden_input(parameters.inputs), where)


def golden_of(parameters: Parameters, window: int, x: Float32, where: str) -> Golden:
    """Expected output and tolerance for the input x (n, T, I)."""
    trace = run(parameters, x)
    y = trace.y if window == 0 or x.shape[1] <= window else served(parameters, window, x)
    with np.errstate(over="ignore", invalid="ignore"):
        single = served(parameters, window, x, np.float32)
    if not (np.isfinite(y).all() and np.isfinite(single).all()):
        found = "a forecast that isn't finite"
        raise ModelFileError(f"{where}: weights", "they overflow float32", expected="finite forecasts", found=found)
    drift = np.maximum.accumulate(np.abs(single - y), axis=1)
    scale = _head_magnitude(parameters, trace.hidden)
    return Golden(x, y, ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * scale + ROUNDING_MARGIN * drift)


def golden_input(inputs: int) -> Float32:
    """float32 (3, STEPS, I): a smooth signal; one with tiny values, zeros and subnormals; one with large values.

    Large values enter one input at a time, so that no sum cancels and float32 stays comparable with float64.
    """
    t = np.arange(STEPS)[:, None]
    k = np.arange(inputs)[None, :]
    smooth = np.sin(0.7 * t + 1.3 * k) + 0.3 * np.cos(2.9 * t * (k + 1))
    tiny = np.where((t + k) % 3 == 0, 0.0, smooth * 10.0 ** -((t * 5 + k) % 42))
    large = np.where(t % max(inputs, 3) == k, smooth * 10.0 ** (t % 4), 0.0)
    return np.stack([smooth, tiny, large]).astype(np.float32)


def check_golden(golden: Golden, step_sequence: Callable[[Float32], NDArray[Any]], where: str = "model") -> None:
    """Run `step_sequence` (x (n, T, I) -> y (n, T, O), each sequence a fresh stream) and compare.

    Raises ModelFileError naming the worst place when a forecast is further off than its tolerance.
    """
    y = np.asarray(step_sequence(golden.x), np.float64)
    if y.shape != golden.y.shape:
        raise ModelFileError(
            f"{where}: golden.y",
            "wrong shape of the golden forecasts",
            expected=str(golden.y.shape),
            found=str(y.shape),
        )
    excess = np.abs(y - golden.y) - golden.tolerance
    excess[~np.isfinite(y)] = np.inf
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    if excess[worst] > 0.0:
        sequence, step, output = (int(i) for i in worst)
        raise ModelFileError(
            f"{where}: golden.y[{sequence}, {step}, {output}]",
            "the golden vectors do not come out: the weights were read or computed wrongly",
            expected=f"{golden.y[worst]:.9g} within {golden.tolerance[worst]:.1e}",
            found=f"{y[worst]:.9g}",
        )


def _head_magnitude(parameters: Parameters, hidden: NDArray[Any]) -> Float64:
    """Sum of the absolute terms that make each forecast, (n, T, O): the scale of rounding where the terms cancel."""
    magnitude: Float64 = np.abs(hidden) @ np.abs(parameters.head_weight.astype(np.float64)).T
    return magnitude + np.abs(parameters.head_bias.astype(np.float64))
