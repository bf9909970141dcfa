"""ONNX graphs of one LSTM and a linear layer, for tests to change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamlstm.errors import ModelFileError
from streamlstm.model.importing import read_foreign

H, INPUTS = 3, 2
RNG = np.random.default_rng(5)
WEIGHTS = {
    "W": RNG.standard_normal((1, 4 * H, INPUTS)).astype(np.float32),
    "R": RNG.standard_normal((1, 4 * H, H)).astype(np.float32),
    "B": RNG.standard_normal((1, 8 * H)).astype(np.float32),
    "FW": RNG.standard_normal((H, 1)).astype(np.float32),
    "FB": RNG.standard_normal(1).astype(np.float32),
    "axis": np.array([0], np.int64),
}


def nodes() -> list[Any]:
    return [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["xt", "W", "R", "B"], ["Y", "Yh", "Yc"], hidden_size=H),
        helper.make_node("Squeeze", ["Yh", "axis"], ["h"]),
        helper.make_node("MatMul", ["h", "FW"], ["m"]),
        helper.make_node("Add", ["m", "FB"], ["y"]),
    ]


def model(
    graph_nodes: list[Any] | None = None,
    weights: dict[str, np.ndarray] | None = None,
    shape: tuple[Any, ...] = ("n", "t", INPUTS),
    outputs: tuple[str, ...] = ("y",),
    states: tuple[tuple[str, tuple[Any, ...]], ...] = (),
) -> Any:
    graph = helper.make_graph(
        graph_nodes if graph_nodes is not None else nodes(),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in (("x", shape), *states)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (WEIGHTS | (weights or {})).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def read(proto: Any, path: Path) -> Any:
    path.write_bytes(proto.SerializeToString())
    return read_foreign(path)


def refused(proto: Any, tmp_path: Path) -> str:
    with pytest.raises(ModelFileError) as error:
        read(proto, tmp_path / "m.onnx")
    assert len(str(error.value)) < 1500
    return str(error.value)


def insert(at: int, *new: Any, **renamed: str) -> list[Any]:
    """The plain nodes with others put in, and inputs of what follows renamed."""
    changed = nodes()
    for node in changed[at:]:
        for k, name in enumerate(node.input):
            node.input[k] = renamed.get(name, name)
    return [*changed[:at], *new, *changed[at:]]
