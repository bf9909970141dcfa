"""Keras files: the .keras zip, whole-model HDF5 of Keras 2 and 3, and weights alone.

Keras keeps kernel (I, 4H), recurrent kernel (H, 4H) and one bias (4H), columns i, f, c, o, where c is our g:
transposed, they are our rows. unit_forget_bias only set the initial bias; it is inside the stored one. Dense kernel
(H, O) transposed is the head.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.errors import ModelFileError
from streamlstm.model.fields import brief
from streamlstm.model.hdf5_file import read_hdf5
from streamlstm.model.imported import Imported
from streamlstm.model.keras_config import KerasLayer, read_chain, read_layer
from streamlstm.model.keras_weights import KerasWeights, read_weights
from streamlstm.model.limits import MAX_JSON_BYTES, MIB, count_elements
from streamlstm.model.parameters import Float32, Layer, Parameters
from streamlstm.model.rescaling import Affine, fold
from streamlstm.model.strict_json import parse_object
from streamlstm.model.tensors import Tensor, read_exact, read_float32, require_shape
from streamlstm.model.zip_file import ZipArchive

MAX_ZIPPED_BYTES = 1024 * MIB
# Layers that do nothing when a model forecasts.
IDENTITY = frozenset(
    {"Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization"}
)
IMPORTED = frozenset({"InputLayer", "Rescaling", "Normalization", "LSTM", "Dense", "TimeDistributed"})
_IDENTITY_GROUP = re.compile(
    r"(input_layer|input|\w+_input|(spatial_|gaussian_|alpha_)?dropout(1d)?|gaussian_noise)(_\d+)?"
)
_LSTM_GROUP = re.compile(r"lstm(_\d+)?")
_DENSE_GROUP = re.compile(r"dense(_\d+)?")
# Options of LSTM and Dense that are checked elsewhere or don't touch a forecast.
_OPTIONS = frozenset(
    (
        *("name", "trainable", "dtype", "batch_shape", "batch_input_shape", "units", "use_bias", "seed", "unroll"),
        *("activation", "recurrent_activation", "return_sequences", "return_state", "go_backwards", "stateful"),
        *("time_major", "zero_output_for_mask", "unit_forget_bias", "dropout", "recurrent_dropout", "implementation"),
        *("input_dim", "input_length", "input_shape", "use_cudnn"),
    )
)
_OPTION_ENDINGS = ("_initializer", "_regularizer", "_constraint")
WEIGHTS_ONLY = (
    "the file holds weights without their architecture: assumed LSTM layers with activation tanh, recurrent_activation "
    "sigmoid, in forward direction, and a linear Dense"
)

HALF_PRECISION = (
    "Keras computes this model in half precision ({}), streamlstm in single: the weights are taken exactly, and "
    "forecasts differ from Keras' own by about 1e-3 of their size, 1e-2 with bfloat16"
)


def read_keras_zip(path: Path) -> Imported:
    """A .keras file of Keras 3 or 2. Raises ModelFileError; imports and runs nothing that the file names."""
    archive = ZipArchive(path)
    where = str(path)
    config = parse_object(archive.read("config.json", MAX_JSON_BYTES), f"{where}: config.json")
    chain = read_chain(config, f"{where}: config.json")
    _require_importable(chain)
    if "model.weights.h5" not in archive.members:
        found = ", ".join(sorted(archive.members))[:120]
        raise ModelFileError(f"{where}: model.weights.h5", "missing member", expected="the weights", found=found)
    version = "unknown"
    if "metadata.json" in archive.members:
        metadata = parse_object(archive.read("metadata.json", MAX_JSON_BYTES), f"{where}: metadata.json")
        version = brief(metadata.get("keras_version")).strip("'")
    content = archive.read("model.weights.h5", MAX_ZIPPED_BYTES)
    weights = read_weights(read_hdf5(content, f"{where}: model.weights.h5"))
    return _with_origin(_assemble(chain, weights), "keras zip", version)


def read_keras_h5(path: Path) -> Imported:
    """A whole-model .h5, or weights alone (Keras 3 .weights.h5, Keras 2 save_weights). Raises ModelFileError."""
    where = str(path)
    file = read_hdf5(path, where)
    version = file.text("keras_version") or "unknown"
    text = file.text("model_config")
    if text is None:
        return _with_origin(_weights_only(read_weights(file)), "keras weights", version)
    chain = read_chain(parse_object(text.encode(), f"{where}: model_config"), f"{where}: model_config")
    _require_importable(chain)
    return _with_origin(_assemble(chain, read_weights(file)), "keras h5", version)


@dataclass
class _Stack:
    """What the chain has given so far."""

    layers: list[Layer]
    head: tuple[Float32, Float32] | None = None
    maps: list[Affine] = field(default_factory=list)
    shape: list[Any] | None = None
    sequences: bool = True
    carried: bool = False


def _require_importable(chain: tuple[KerasLayer, ...]) -> None:
    """Name the layer that stands in the way before any weight is looked at."""
    for layer in chain:
        if layer.class_name not in IMPORTED | IDENTITY:
            expected = ", ".join(sorted(IMPORTED))
            layer.refuse("class_name", "a layer that cannot be imported", expected, layer.class_name[:60])


def _assemble(chain: tuple[KerasLayer, ...], weights: KerasWeights) -> Imported:
    stack = _Stack([])
    notes: list[str] = []
    halves = sorted({name for layer in chain if "float16" in (name := layer.dtype_policy())})
    if halves:
        notes.append(HALF_PRECISION.format(", ".join(halves)[:120]))
    for layer in chain:
        stack.shape = stack.shape or _input_shape(layer)
        if layer.class_name in IDENTITY:
            continue
        if layer.class_name == "InputLayer":
            if stack.layers or layer.flag("sparse") or layer.flag("ragged"):
                layer.refuse("", "an odd input", "one dense input in front", "another")
        elif layer.class_name in ("Rescaling", "Normalization") and not stack.layers:
            stack.maps.append(_rescaling(layer) if layer.class_name == "Rescaling" else _normalization(layer, weights))
            notes.append(f"{layer.class_name} folded into the weights of the first layer")
        elif layer.class_name == "LSTM" and stack.head is None:
            _add_lstm(stack, layer, weights)
        elif layer.class_name in ("Dense", "TimeDistributed") and stack.layers and stack.head is None:
            stack.head = _head(stack, layer, weights)
        else:
            expected = "scaling of the inputs, LSTM layers, one linear Dense, in this order"
            layer.refuse("class_name", "a layer that cannot be imported at this place", expected, layer.class_name[:60])
    parameters = _parameters(stack, weights, chain[0].where)
    return Imported(parameters, _fixed_window(stack), stack.carried, notes=tuple(notes))


def _parameters(stack: _Stack, weights: KerasWeights, where: str) -> Parameters:
    weights.finish()
    if not stack.layers or stack.head is None:
        found = "no LSTM" if not stack.layers else "no Dense"
        raise ModelFileError(f"{where}: layers", "incomplete model", expected="LSTM layers and one Dense", found=found)
    parameters = Parameters(tuple(stack.layers), *stack.head)
    if stack.shape is not None and (len(stack.shape) != 3 or stack.shape[2] not in (None, parameters.inputs)):
        expected = f"(batch, time, {parameters.inputs})"
        raise ModelFileError(f"{where}: batch_shape", "input shape", expected=expected, found=brief(stack.shape[-1]))
    return fold(parameters, stack.maps, where) if stack.maps else parameters


def _fixed_window(stack: _Stack) -> int | None:
    steps = stack.shape[1] if stack.shape else None
    return steps if isinstance(steps, int) and steps >= 1 and not stack.carried else None


def _input_shape(layer: KerasLayer) -> list[Any] | None:
    shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
    if shape is None:
        return None
    if not isinstance(shape, list) or len(shape) != 3 or not all(n is None or type(n) is int for n in shape):
        layer.refuse("batch_shape", "input shape", "(batch, time, inputs)", brief(shape))
    return shape


def _require_known_options(layer: KerasLayer) -> None:
    """An option that this code has never heard of may change the arithmetic, unless it is off."""
    for option, value in layer.config.items():
        if option not in _OPTIONS and not option.endswith(_OPTION_ENDINGS) and value not in (None, False):
            layer.refuse(option[:60], "an unknown option", "null or false", brief(value))


def _add_lstm(stack: _Stack, layer: KerasLayer, weights: KerasWeights) -> None:
    _require_known_options(layer)
    rules = (("activation", "tanh"), ("recurrent_activation", "sigmoid"))
    for option, expected in rules:
        found = layer.config.get(option)
        if found != expected:
            layer.refuse(option, "an activation that cannot be imported", expected, brief(found))
    for option in ("go_backwards", "return_state", "time_major"):
        if layer.flag(option):
            layer.refuse(option, "an LSTM that cannot be streamed", "false", "true")
    if not stack.sequences:
        layer.refuse("", "the LSTM below gives its last step only", "return_sequences=True below", "false")
    stack.sequences = layer.flag("return_sequences")
    if stack.layers and layer.flag("stateful") != stack.carried:
        problem = "only a part of the layers carries its state"
        layer.refuse("stateful", problem, "all LSTM layers or none", brief(not stack.carried))
    stack.carried = layer.flag("stateful")
    below = stack.layers[-1].hidden if stack.layers else None
    stack.layers.append(_lstm(layer, weights.take(layer), below, layer.config.get("use_bias") is not False))
    _require_units(layer, stack.layers[-1].hidden)


def _lstm(layer: KerasLayer, tensors: list[Tensor], below: int | None, with_bias: bool) -> Layer:
    _require_count(layer, tensors, 3 if with_bias else 2)
    kernel, recurrent = tensors[:2]
    H = recurrent.shape[0] if len(recurrent.shape) == 2 else 0
    I = below or (kernel.shape[0] if len(kernel.shape) == 2 else 0)  # noqa: E741
    require_shape(recurrent, (H, 4 * H))
    require_shape(kernel, (I, 4 * H))
    count_elements((4 * H, I + H), kernel.where)
    bias: Float32 = np.zeros(4 * H, np.float32)
    if with_bias:
        require_shape(tensors[2], (4 * H,))
        bias = read_float32(tensors[2])
    return Layer(read_float32(kernel).T, read_float32(recurrent).T, bias)


def _head(stack: _Stack, layer: KerasLayer, weights: KerasWeights) -> tuple[Float32, Float32]:
    dense = layer
    if layer.class_name == "TimeDistributed":
        dense = read_layer(layer.config.get("layer"), layer.where)
        if dense.class_name != "Dense" or not stack.sequences:
            layer.refuse("layer", "TimeDistributed", "Dense over return_sequences=True", dense.class_name[:60])
    _require_known_options(dense)
    activation = dense.config.get("activation")
    if activation not in ("linear", None):
        dense.refuse("activation", "an output activation that cannot be imported", "linear", brief(activation))
    kernel, bias = _dense(
        dense, weights.take(layer), stack.layers[-1].hidden, dense.config.get("use_bias") is not False
    )
    _require_units(dense, len(bias))
    return kernel, bias


def _dense(layer: KerasLayer, tensors: list[Tensor], H: int, with_bias: bool) -> tuple[Float32, Float32]:
    _require_count(layer, tensors, 2 if with_bias else 1)
    kernel = tensors[0]
    O = kernel.shape[1] if len(kernel.shape) == 2 else 0  # noqa: E741
    require_shape(kernel, (H, O))
    bias: Float32 = np.zeros(O, np.float32)
    if with_bias:
        require_shape(tensors[1], (O,))
        bias = read_float32(tensors[1])
    return read_float32(kernel).T, bias


def _rescaling(layer: KerasLayer) -> Affine:
    return Affine(_numbers(layer, "scale"), _numbers(layer, "offset"))


def _normalization(layer: KerasLayer, weights: KerasWeights) -> Affine:
    """(x - mean) / max(sqrt(variance), 1e-7), with the moments of the configuration or those that adapt() found."""
    axis = layer.config.get("axis")
    if axis not in (-1, [-1], 2, [2]) or layer.flag("invert"):
        layer.refuse("axis", "Normalization", "axis -1, not inverted", brief(axis))
    tensors = weights.take(layer)
    if layer.config.get("mean") is None and len(tensors) >= 2:
        mean, variance = (read_exact(tensor).astype(np.float64).reshape(-1) for tensor in tensors[:2])
    else:
        mean, variance = _numbers(layer, "mean"), _numbers(layer, "variance")
    if mean.shape != variance.shape or np.any(variance < 0.0):
        layer.refuse("variance", "Normalization", f"{len(mean)} positive numbers", f"{len(variance)} numbers")
    scale = 1.0 / np.maximum(np.sqrt(variance), 1e-7)
    return Affine(scale, -mean * scale)


def _numbers(layer: KerasLayer, option: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    value = layer.config.get(option)
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(number, int | float) and abs(number) < 1e300 for number in numbers):
        layer.refuse(option, "wrong type", "numbers", brief(value))
    return np.array(numbers, np.float64)


def _require_count(layer: KerasLayer, tensors: list[Tensor], expected: int) -> None:
    if len(tensors) != expected:
        layer.refuse("weights", "missing or odd tensors", f"{expected} tensors", f"{len(tensors)}")


def _require_units(layer: KerasLayer, units: int) -> None:
    found = layer.config.get("units", units)
    if found != units:
        layer.refuse("units", "units against stored weights", str(units), brief(found))


def _weights_only(weights: KerasWeights) -> Imported:
    order = _counted_order(weights) if weights.counted else weights.order
    stack = _Stack([])
    for name in order:
        found = weights.tensors.get(name, {})
        layer = KerasLayer(weights.where, _class_of(name, found, weights), name, {}, name)
        if layer.class_name == "LSTM" and stack.head is None:
            tensors = weights.take(layer)
            below = stack.layers[-1].hidden if stack.layers else None
            stack.layers.append(_lstm(layer, tensors, below, len(tensors) == 3))
        elif layer.class_name == "Dense" and stack.layers and stack.head is None:
            tensors = weights.take(layer)
            stack.head = _dense(layer, tensors, stack.layers[-1].hidden, len(tensors) == 2)
        elif layer.class_name != "Dropout":
            layer.refuse("", "a layer that cannot be imported at this place", "LSTM layers, then one Dense", name[:60])
    return Imported(_parameters(stack, weights, weights.where), notes=(WEIGHTS_ONLY,))


def _counted_order(weights: KerasWeights) -> list[str]:
    """LSTM layers as they were counted, then everything else: groups of a file come in the order of the alphabet."""
    numbered = [
        (name, int(match[1][1:]) if match[1] else 0) for name in weights.order if (match := _LSTM_GROUP.fullmatch(name))
    ]
    lstms = [name for name, _ in sorted(numbered, key=lambda pair: pair[1])]
    unknown = [name for name in weights.order if not _class_of(name, {}, weights)]  # first, to be named
    return unknown + lstms + [name for name in weights.order if name not in (*unknown, *lstms)]


def _class_of(name: str, tensors: dict[str, Tensor], weights: KerasWeights) -> str:
    """The class that a group of weights without architecture can only be; "" when it can be none that is known."""
    if weights.counted:
        kinds = ((_LSTM_GROUP, "LSTM"), (_DENSE_GROUP, "Dense"), (_IDENTITY_GROUP, "Dropout"))
        return next((kind for pattern, kind in kinds if pattern.fullmatch(name)), "")
    if "recurrent_kernel" in tensors:
        return "LSTM"
    if "kernel" in tensors:
        return "Dense"
    return "Dropout" if not tensors and _IDENTITY_GROUP.fullmatch(name) else ""


def _with_origin(imported: Imported, form: str, version: str) -> Imported:
    origin = {"framework": "keras", "format": form, "version": version[:40]}
    return Imported(imported.parameters, imported.fixed_window, imported.carried, origin, imported.notes)
