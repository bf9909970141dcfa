"""PyTorch's names of tensors -> Parameters.

nn.LSTM names its tensors weight_ih_l<k> (4H, I), weight_hh_l<k> (4H, H), bias_ih_l<k> and bias_hh_l<k> (4H), gate rows
i, f, g, o, which is the order kept here; the two biases are added. nn.Linear: weight (O, H), bias (O). Every tensor
is either one of these or the file is refused, since a tensor left over means a layer that would be left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MAX_LAYERS, count_elements
from streamlstm.model.parameters import Float32, Layer, Parameters, join_biases
from streamlstm.model.tensors import Tensor, read_exact, read_float32, require_shape, to_float32

_RECURRENT = re.compile(
    r"(?P<module>.*?)(?P<part>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)"
    r"(?:_l(?P<layer>0|[1-9][0-9]{0,3}))?(?P<reverse>_reverse)?"  # as PyTorch counts: one spelling for each layer
)


@dataclass(frozen=True)
class _Recurrent:
    """The LSTM's tensors by (layer, part); `module` is the prefix of their names, `suffix` how a layer ends them."""

    module: str
    numbered: bool
    parts: dict[tuple[int, str], Tensor]


def is_state_dict(names: object) -> bool:
    """Whether a mapping has names of a recurrent layer of PyTorch."""
    return isinstance(names, Mapping) and any(isinstance(key, str) and _RECURRENT.fullmatch(key) for key in names)


def read_state_dict(tensors: Mapping[str, Tensor], where: str) -> tuple[Parameters, tuple[str, ...]]:
    """Parameters and notes. Raises ModelFileError naming the tensor that is missing, of a wrong shape or of no known
    use.
    """
    recurrent, others = _split(tensors, where)
    layers = _layers(recurrent, where)
    weight, bias = _head(recurrent, others, where)
    H = layers[-1].hidden
    if len(weight.shape) != 2 or weight.shape[1] != H:
        raise ModelFileError(
            weight.where, "the output layer does not fit", expected=f"(O, {H})", found=str(weight.shape)
        )
    require_shape(weight, (weight.shape[0], H))
    head_bias: Float32 = np.zeros(weight.shape[0], np.float32)
    if bias is not None:
        require_shape(bias, (weight.shape[0],))
        head_bias = read_float32(bias)
    notes = [] if recurrent.numbered else ["an nn.LSTMCell, taken as one layer"]
    doubles = sum(tensor.dtype == "float64" for tensor in tensors.values())
    if doubles:
        notes.append(f"{doubles} float64 tensors rounded to float32")
    return Parameters(tuple(layers), read_float32(weight), head_bias), tuple(notes)


def _split(tensors: Mapping[str, Tensor], where: str) -> tuple[_Recurrent, dict[str, Tensor]]:
    modules: dict[str, dict[tuple[int, str], Tensor]] = {}
    numbered: set[bool] = set()
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _RECURRENT.fullmatch(name)
        if match is None:
            others[name] = tensor
            continue
        if match["reverse"]:
            problem = "a bidirectional LSTM reads the future, so it cannot forecast a stream"
            raise ModelFileError(tensor.where, problem, expected="one direction", found="a reverse layer")
        if match["part"] == "weight_hr":
            raise ModelFileError(tensor.where, "projection", expected="proj_size=0", found=f"weight_hr {tensor.shape}")
        numbered.add(match["layer"] is not None)
        modules.setdefault(match["module"], {})[int(match["layer"] or 0), match["part"]] = tensor
    if len(modules) != 1 or len(numbered) != 1:
        found = ", ".join(name.rstrip(".") or "(top level)" for name in sorted(modules))[:200] or _names(others)
        problem = "how several recurrent modules connect is not in the file" if modules else "no LSTM in it"
        raise ModelFileError(f"{where}: weight_ih_l0", problem, expected="one nn.LSTM", found=found)
    module, parts = modules.popitem()
    return _Recurrent(module, numbered.pop(), parts), others


def _layers(recurrent: _Recurrent, where: str) -> list[Layer]:
    parts = recurrent.parts
    count = max(layer for layer, _ in parts) + 1
    if count > MAX_LAYERS:
        raise ModelFileError(where, "layers", expected=f"at most {MAX_LAYERS}", found=str(count))
    with_bias = any(part.startswith("bias") for _, part in parts)
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if with_bias else ()))
    for layer in range(count):
        for part in kinds:
            if (layer, part) not in parts:
                name = f"{recurrent.module}{part}" + (f"_l{layer}" if recurrent.numbered else "")
                raise ModelFileError(f"{where}: {name[:200]}", "missing tensor", expected=part, found="nothing")
    layers: list[Layer] = []
    for k in range(count):
        H = _hidden(parts[k, "weight_ih"], parts[k, "weight_hh"])
        below = layers[-1].hidden if layers else parts[0, "weight_ih"].shape[1]
        require_shape(parts[k, "weight_ih"], (4 * H, below))
        require_shape(parts[k, "weight_hh"], (4 * H, H))
        count_elements((4 * H, below + H), parts[k, "weight_ih"].where)
        bias: Float32 = np.zeros(4 * H, np.float32)
        if with_bias:
            require_shape(parts[k, "bias_ih"], (4 * H,))
            require_shape(parts[k, "bias_hh"], (4 * H,))
            joined = join_biases(read_exact(parts[k, "bias_ih"]), read_exact(parts[k, "bias_hh"]))
            bias = to_float32(joined, parts[k, "bias_ih"].where)
        layers.append(Layer(read_float32(parts[k, "weight_ih"]), read_float32(parts[k, "weight_hh"]), bias))
    return layers


def _hidden(weight_ih: Tensor, weight_hh: Tensor) -> int:
    """H, from rows = 4H; a GRU has 3H rows and a plain RNN has H."""
    for tensor in (weight_ih, weight_hh):
        if len(tensor.shape) != 2:
            raise ModelFileError(tensor.where, "wrong shape", expected="(4H, columns)", found=str(tensor.shape))
        if 0 in tensor.shape:
            raise ModelFileError(tensor.where, "an empty axis", expected="sizes of at least 1", found=str(tensor.shape))
    rows, H = weight_hh.shape
    if rows != 4 * H and weight_ih.shape[0] == rows:
        kinds = {3 * H: "a GRU has 3H rows", H: "a plain RNN has H rows"}
        problem = kinds.get(rows, "not an LSTM")
        raise ModelFileError(weight_hh.where, problem, expected=f"({4 * H}, {H}), 4 gates", found=str(weight_hh.shape))
    return H


def _head(recurrent: _Recurrent, others: dict[str, Tensor], where: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the one nn.Linear beside the LSTM."""
    weights = [name for name in others if name.endswith("weight") and len(others[name].shape) == 2]
    if not weights:
        found = _names(others)[:120] if others else f"only {recurrent.module.rstrip('.') or 'the LSTM'}"
        raise ModelFileError(f"{where}: weight", "no output layer", expected="one nn.Linear on the last h", found=found)
    if len(weights) > 1:
        problem = "several linear layers; what stands between them is not in a state_dict"
        raise ModelFileError(f"{where}: {weights[1][:200]}", problem, expected="one nn.Linear", found=_names(weights))
    bias_name = weights[0].removesuffix("weight") + "bias"
    for name, tensor in others.items():
        if name not in (weights[0], bias_name):
            problem = "a tensor of no LSTM and no output layer; leaving it out would change the forecasts"
            raise ModelFileError(
                tensor.where, problem, expected="one nn.LSTM and one nn.Linear", found=str(tensor.shape)
            )
    return others[weights[0]], others.get(bias_name)


def _names(names: object) -> str:
    listed = sorted(names) if isinstance(names, list | dict) else []
    return (", ".join(name or "a tensor without name" for name in listed)[:200]) or "no tensor"
