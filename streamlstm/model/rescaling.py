"""A fixed affine map of the inputs in front of the first layer (Keras Rescaling, Normalization), folded into its
weights.

W (a x + b) + bias  =  (W a) x + (W b + bias)
"""

from dataclasses import dataclass

import numpy as np

from streamlstm.errors import ModelFileError
from streamlstm.model.forward import run
from streamlstm.model.golden import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, golden_input
from streamlstm.model.parameters import Float64, Layer, Parameters
from streamlstm.model.tensors import to_float32


@dataclass(frozen=True, eq=False)
class Affine:
    """x' = scale x + offset; float64 (I,) each, or (1,) for all inputs alike."""

    scale: Float64
    offset: Float64


def fold(parameters: Parameters, maps: list[Affine], where: str) -> Parameters:
    """Parameters that take x where the given ones take x after these maps, in their order: folded in float64, rounded
    once, then compared.

    Raises ModelFileError when a map has neither 1 nor I numbers, or when rounding the folded weights to float32 moves a
    forecast beyond the tolerance.
    """
    affine = _one(maps, parameters.inputs, where)
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.offset).all() and np.all(affine.scale != 0.0)):
        found = "zero, NaN or infinity"
        raise ModelFileError(
            where, "scaling of the inputs", expected="finite numbers, a scale that isn't zero", found=found
        )
    first = parameters.layers[0]
    weight = first.weight_ih.astype(np.float64)
    bias = first.bias.astype(np.float64) + weight @ affine.offset
    layer = Layer(to_float32(weight * affine.scale, where), first.weight_hh, to_float32(bias, where))
    folded = Parameters((layer, *parameters.layers[1:]), parameters.head_weight, parameters.head_bias)
    scaled = golden_input(parameters.inputs)[:2].astype(np.float64)
    expected = run(parameters, scaled).y
    error = np.abs(run(folded, (scaled - affine.offset) / affine.scale).y - expected)
    if np.any(error > 0.5 * (ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(expected))):
        problem = "folding the scaling of the inputs into float32 weights loses too much; use --scaling"
        raise ModelFileError(where, problem, expected="forecasts unchanged", found=f"a change of {error.max():.1e}")
    return folded


def _one(maps: list[Affine], inputs: int, where: str) -> Affine:
    """The maps one after the other as one of (I,)."""
    scale, offset = np.ones(inputs), np.zeros(inputs)
    for affine in maps:
        for numbers in (affine.scale, affine.offset):
            if numbers.shape not in ((1,), (inputs,)):
                expected = f"1 or {inputs} numbers"
                raise ModelFileError(where, "scaling of the inputs", expected=expected, found=str(numbers.size))
        with np.errstate(over="ignore", invalid="ignore"):
            scale, offset = scale * affine.scale, offset * affine.scale + affine.offset
    return Affine(scale, offset)
