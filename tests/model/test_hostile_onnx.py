"""ONNX graphs that look like an LSTM and compute something else, or bomb."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from streamlstm.model.forward import run
from tests.model.onnx_writing import INPUTS, WEIGHTS, H, insert, model, nodes, read, refused


def test_the_plain_graph_is_read(tmp_path: Path) -> None:
    parameters = read(model(), tmp_path / "m.onnx").parameters
    i, o, f, c = np.split(WEIGHTS["W"][0], 4)
    assert np.array_equal(parameters.layers[0].weight_ih, np.concatenate([i, f, c, o]))
    assert run(parameters, np.ones((1, 4, INPUTS))).y.shape == (1, 4, 1)


def test_a_time_first_graph_and_a_head_on_every_step(tmp_path: Path) -> None:
    every = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=H),
        helper.make_node("Squeeze", ["Y", "one"], ["s"]),
        helper.make_node("MatMul", ["s", "FW"], ["m"]),
        helper.make_node("Add", ["FB", "m"], ["y"]),
    ]
    imported = read(model(every, {"one": np.array([1], np.int64)}, ("t", "n", INPUTS)), tmp_path / "m.onnx")
    assert imported.fixed_window is None
    fixed = read(model(every, {"one": np.array([1], np.int64)}, (7, "n", INPUTS)), tmp_path / "m.onnx")
    assert fixed.fixed_window == 7


WRONG_GRAPHS: dict[str, Callable[[], Any]] = {
    "residual": lambda: model(
        [
            *nodes()[:4],
            helper.make_node("Gather", ["x", "last"], ["xl"], axis=1),
            helper.make_node("Gather", ["xl", "zero"], ["x0"], axis=1),
            helper.make_node("Unsqueeze", ["x0", "one"], ["x1"]),
            helper.make_node("Add", ["m", "x1"], ["y"]),
        ],
        {"last": np.array(-1), "zero": np.array(0), "one": np.array([1], np.int64)},
    ),
    "second linear layer": lambda: model(
        [*nodes()[:4], helper.make_node("MatMul", ["m", "S"], ["y"])], {"S": np.ones((1, 1), np.float32)}
    ),
    "linear layer below": lambda: model(
        insert(1, helper.make_node("MatMul", ["xt", "S"], ["xs"]), xt="xs"), {"S": np.eye(2, dtype=np.float32)}
    ),
    "first step": lambda: model(
        [
            *nodes()[:2],
            helper.make_node("Gather", ["Y", "zero"], ["g"], axis=0),
            helper.make_node("Squeeze", ["g", "axis"], ["h"]),
            *nodes()[3:],
        ],
        {"zero": np.array(0)},
    ),
    "a fixed step": lambda: model(
        [
            *nodes()[:2],
            helper.make_node("Gather", ["Y", "four"], ["g"], axis=0),
            helper.make_node("Squeeze", ["g", "axis"], ["h"]),
            *nodes()[3:],
        ],
        {"four": np.array(4)},
    ),
    "cell state": lambda: model(insert(2, Yh="Yc")),
    "reversed time": lambda: model(
        insert(1, helper.make_node("Slice", ["xt", "s", "e", "axis", "s"], ["xr"]), xt="xr"),
        {"s": np.array([-1]), "e": np.array([-(1 << 60)])},
    ),
    "first sequence only": lambda: model(
        insert(1, helper.make_node("Slice", ["xt", "axis", "one", "one"], ["xr"]), xt="xr"), {"one": np.array([1])}
    ),
    "sequences mixed": lambda: model(
        insert(0, helper.make_node("Slice", ["x", "s", "e", "axis", "s"], ["xr"]), x="xr"),
        {"s": np.array([-1]), "e": np.array([-(1 << 60)])},
    ),
    "rounded input": lambda: model(
        insert(0, helper.make_node("Cast", ["x"], ["xi"], to=7), helper.make_node("Cast", ["xi"], ["xr"], to=1), x="xr")
    ),
    "initial state": lambda: model(
        [
            nodes()[0],
            helper.make_node("LSTM", ["xt", "W", "R", "B", "", "h0"], ["Y", "Yh"], hidden_size=H),
            *nodes()[2:],
        ],
        {"h0": np.ones((1, 1, H), np.float32)},
    ),
    "initial state from x": lambda: model(
        [
            nodes()[0],
            helper.make_node("Gather", ["xt", "axis"], ["g"], axis=0),
            helper.make_node("Concat", ["g", "g"], ["gg"], axis=2),
            helper.make_node("Slice", ["gg", "axis", "three", "two"], ["h0"]),
            helper.make_node("LSTM", ["xt", "W", "R", "B", "", "h0"], ["Y", "Yh"], hidden_size=H),
            *nodes()[2:],
        ],
        {"three": np.array([3]), "two": np.array([2])},
    ),
    "weights from x": lambda: model(
        [
            nodes()[0],
            helper.make_node("Gather", ["xt", "zero"], ["g"], axis=0),
            helper.make_node("LSTM", ["xt", "g", "R", "B"], ["Y", "Yh"], hidden_size=H),
            *nodes()[2:],
        ],
        {"zero": np.array(0)},
    ),
    "sequence lengths": lambda: model(
        [nodes()[0], helper.make_node("LSTM", ["xt", "W", "R", "B", "len"], ["Y", "Yh"], hidden_size=H), *nodes()[2:]],
        {"len": np.array([1], np.int32)},
    ),
    "another hidden size": lambda: model(
        [nodes()[0], helper.make_node("LSTM", ["xt", "W", "R", "B"], ["Y", "Yh"], hidden_size=7), *nodes()[2:]]
    ),
    "no output layer": lambda: model(nodes()[:3], outputs=("h",)),
    "two outputs of it": lambda: model([*nodes(), helper.make_node("Add", ["m", "FB"], ["z"])], outputs=("y", "z")),
    "used before defined": lambda: model(nodes()[::-1]),
    "defined twice": lambda: model([*nodes(), nodes()[4]]),
    "no such output": lambda: model(outputs=("nope",)),
    "a tanh": lambda: model(insert(4, helper.make_node("Tanh", ["m"], ["mt"]), m="mt")),
    "a custom domain": lambda: model([*nodes()[:4], helper.make_node("Add", ["m", "FB"], ["y"], domain="evil")]),
    "a control flow": lambda: model(
        [*nodes()[:4], helper.make_node("If", ["m"], ["y"], then_branch=model().graph, else_branch=model().graph)]
    ),
    "a subgraph attribute": lambda: model(
        [*nodes()[:4], helper.make_node("Add", ["m", "FB"], ["y"], body=model().graph)]
    ),
    "an unknown attribute": lambda: model([*nodes()[:4], helper.make_node("Add", ["m", "FB"], ["y"], scale=2.0)]),
    "a free input size": lambda: model(shape=("n", "t", "i")),
    "a flat input": lambda: model(shape=("n", INPUTS)),
    "a huge fixed shape": lambda: model(shape=(1 << 30, 1 << 30, INPUTS)),
    "a long fixed shape": lambda: model(shape=(1 << 20, 64, INPUTS)),
    "a bomb of Concat": lambda: model(
        [*nodes(), *(helper.make_node("Concat", [f"b{k}"] * 64, [f"b{k + 1}"], axis=0) for k in range(8))],
        {"b0": np.zeros(1000, np.float32)},
    ),
    "a bomb of Expand": lambda: model(
        [*nodes(), helper.make_node("Expand", ["FB", "big"], ["e"]), helper.make_node("Add", ["e", "e"], ["z"])],
        {"big": np.array([1 << 20, 1 << 20])},
    ),
    "a bomb of zeros": lambda: model(
        [
            *nodes(),
            helper.make_node("ConstantOfShape", ["big"], ["e"]),
            helper.make_node("Reshape", ["e", "flat"], ["z"]),
        ],
        {"big": np.array([1 << 20, 1 << 20]), "flat": np.array([-1])},
    ),
    "a negative shape": lambda: model(
        [*nodes(), helper.make_node("ConstantOfShape", ["big"], ["e"])], {"big": np.array([-1])}
    ),
    "an overflowing shape": lambda: model(
        [*nodes(), helper.make_node("Expand", ["FB", "big"], ["e"])], {"big": np.array([1 << 62, 1 << 62])}
    ),
    "an outer product": lambda: model(
        [*nodes(), helper.make_node("MatMul", ["big", "wide"], ["e"])],
        {"big": np.zeros((5000, 1), np.float32), "wide": np.zeros((1, 5000), np.float32)},
    ),
}


@pytest.mark.parametrize("what", WRONG_GRAPHS)
def test_a_graph_that_is_something_else(what: str, tmp_path: Path) -> None:
    refused(WRONG_GRAPHS[what](), tmp_path)


def broken_tensor(**fields: Any) -> Any:
    proto = model()
    (tensor,) = (entry for entry in proto.graph.initializer if entry.name == "R")
    for name, value in fields.items():
        if isinstance(value, list):
            tensor.ClearField(name)
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return proto


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"dims": [1, 12, 4]}, "data against shape"),
        ({"dims": [1, -12, -3]}, "shape"),
        ({"dims": [1 << 62, 1 << 62, 1 << 62]}, "shape"),
        ({"dims": [0]}, "data against shape"),
        ({"dims": []}, "data against shape"),
        ({"raw_data": b"\0" * 143}, "data against shape"),
        ({"raw_data": b""}, "data against shape"),
        ({"float_data": [1.0] * 36}, "data fields"),
        ({"raw_data": b"", "int64_data": [1] * 36}, "data fields"),
        ({"data_type": TensorProto.STRING}, "data_type"),
        ({"data_type": TensorProto.UNDEFINED}, "data_type"),
        ({"data_type": 77}, "data_type"),
        ({"data_type": TensorProto.DOUBLE}, "data against shape"),
        ({"data_location": TensorProto.EXTERNAL}, "external_data"),
        ({"raw_data": np.full(36, np.nan, "<f4").tobytes()}, "finite"),
        ({"name": "W"}, "name"),
        ({"name": ""}, "name"),
    ],
)
def test_a_tensor_that_lies(fields: dict[str, Any], word: str, tmp_path: Path) -> None:
    assert word in refused(broken_tensor(**fields), tmp_path)


def test_other_parts_of_a_model_are_refused(tmp_path: Path) -> None:
    proto = model()
    proto.functions.add().name = "f"
    assert "functions" in refused(proto, tmp_path)
    proto = model()
    proto.graph.sparse_initializer.add().dims.append(3)
    assert "sparse_initializer" in refused(proto, tmp_path)
    proto = model()
    proto.graph.initializer[1].segment.begin = 1
    assert "data_type" in refused(proto, tmp_path)
    for version in (3, 99):
        proto = model()
        proto.opset_import[0].version = version
        assert "opset_import" in refused(proto, tmp_path)
    assert "graph" in refused(onnx.ModelProto(ir_version=8), tmp_path)


def test_typed_fields_and_half_floats_are_read(tmp_path: Path) -> None:
    plain = read(model(), tmp_path / "m.onnx").parameters
    R = WEIGHTS["R"]
    typed = broken_tensor(raw_data=b"", float_data=R.reshape(-1).tolist())
    assert np.array_equal(read(typed, tmp_path / "m.onnx").parameters.layers[0].weight_hh, plain.layers[0].weight_hh)
    half = R.astype(np.float16)
    i, o, f, c = np.split(half[0].astype(np.float32), 4)
    for fields in (
        {"raw_data": half.tobytes()},
        {"raw_data": b"", "int32_data": half.view(np.uint16).reshape(-1).tolist()},
    ):
        proto = broken_tensor(data_type=TensorProto.FLOAT16, **fields)
        found = read(proto, tmp_path / "m.onnx").parameters.layers[0].weight_hh
        assert np.array_equal(found, np.concatenate([i, f, c, o]))
