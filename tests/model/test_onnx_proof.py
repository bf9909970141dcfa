"""What the trials of an ONNX graph must see: parts of the sequence, states that come and go, and their own cost."""

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from streamlstm.errors import UsageError
from streamlstm.model.importing import ImportOptions, import_model
from tests.model.onnx_writing import INPUTS, H, insert, model, nodes, read, refused

FAR = (1 << 63) - 1
RNG = np.random.default_rng(6)


def sliced(data: str, start: int, end: int, axis: int) -> tuple[list[Any], dict[str, np.ndarray]]:
    """A node that makes "part" of `data`, and its constants."""
    constants = {"start": start, "end": end, "along": axis}
    arrays = {name: np.array([value], np.int64) for name, value in constants.items()}
    return [helper.make_node("Slice", [data, *constants], ["part"])], arrays


@pytest.mark.parametrize(("start", "end"), [(0, 10), (-10, FAR), (0, 100), (-100, FAR)])
@pytest.mark.parametrize("place", ["below", "behind"])
def test_a_part_of_the_sequence_is_seen_at_any_length(place: str, start: int, end: int, tmp_path: Path) -> None:
    at, data, axis = (0, "x", 1) if place == "below" else (2, "Y", 0)
    new, constants = sliced(data, start, end, axis)
    if place == "below":
        proto = model(insert(at, *new, x="part"), constants)
    else:
        last = helper.make_node("Gather", ["part", "last"], ["step"], axis=0)
        proto = model(insert(at, *new, last, Yh="step"), constants | {"last": np.array(-1)})
    assert "part of the batch or of the sequence" in refused(proto, tmp_path)


def test_the_first_sequences_only(tmp_path: Path) -> None:
    new, constants = sliced("x", 0, 50, 0)
    assert "part of the batch" in refused(model(insert(0, *new, x="part"), constants), tmp_path)


def test_a_slice_of_all_and_the_one_direction_are_read(tmp_path: Path) -> None:
    new, constants = sliced("x", 0, FAR, 1)
    assert read(model(insert(0, *new, x="part"), constants), tmp_path / "m.onnx").fixed_window is None
    upper = [
        *nodes()[:2],
        helper.make_node("Gather", ["Y", "zero"], ["one"], axis=1),
        helper.make_node("LSTM", ["one", "W2", "R", "B"], ["Y2", "Yh2"], hidden_size=H),
        *insert(2, Yh="Yh2")[2:],
    ]
    weights = {"zero": np.array(0), "W2": RNG.standard_normal((1, 4 * H, H)).astype(np.float32)}
    assert read(model(upper, weights), tmp_path / "m.onnx").parameters.hidden == (H, H)
    behind = [helper.make_node("Slice", ["Y", "start", "end", "along"], ["part"])]
    constants = {"start": np.array([-1]), "end": np.array([FAR]), "along": np.array([0]), "axes": np.array([0, 1])}
    last = [
        *nodes()[:2],
        *behind,
        helper.make_node("Squeeze", ["part", "axes"], ["h"]),
        *nodes()[3:],
    ]
    assert read(model(last, constants), tmp_path / "m.onnx").parameters.hidden == (H,)


def test_the_last_ten_by_the_length_of_the_sequence(tmp_path: Path) -> None:
    """x[:, T - 10 :] with T from Shape: the whole at short lengths."""
    ten = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "one"], ["steps"], axis=0),
        helper.make_node("Add", ["steps", "less"], ["start"]),
        helper.make_node("Slice", ["x", "start", "end", "one"], ["part"]),
    ]
    constants = {"one": np.array([1]), "less": np.array([-10]), "end": np.array([FAR])}
    assert "part of the batch or of the sequence" in refused(model(insert(0, *ten, x="part"), constants), tmp_path)


def test_places_and_weights_that_depend_on_the_input(tmp_path: Path) -> None:
    by_value = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["many"]),
        helper.make_node("Gather", ["many", "axis"], ["start"], axis=0),
        helper.make_node("Slice", ["x", "start", "end", "one"], ["part"]),
    ]
    constants = {"flat": np.array([-1]), "one": np.array([1]), "end": np.array([FAR])}
    assert "place or size" in refused(model(insert(0, *by_value, x="part"), constants), tmp_path)
    by_size = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["parts"], to=TensorProto.FLOAT),
        helper.make_node("Expand", ["parts", "many"], ["spread"]),
        helper.make_node("Reshape", ["spread", "shape"], ["R2"]),
        *nodes()[:1],
        helper.make_node("LSTM", ["xt", "W", "R2", "B"], ["Y", "Yh"], hidden_size=H),
        *nodes()[2:],
    ]
    constants = {"many": np.array([4 * H, 3]), "shape": np.array([1, 4 * H, H])}
    assert "depends on the input" in refused(model(by_size, constants), tmp_path)


@pytest.mark.parametrize("kind", [TensorProto.BOOL, TensorProto.STRING, TensorProto.FLOAT8E5M2, TensorProto.COMPLEX64])
def test_a_cast_that_is_no_identity(kind: int, tmp_path: Path) -> None:
    casts = [helper.make_node("Cast", ["x"], ["c"], to=kind), helper.make_node("Cast", ["c"], ["f"], to=1)]
    message = refused(model(insert(0, *casts, x="f")), tmp_path)
    assert ("something else" if kind == TensorProto.BOOL else f"a cast to type {kind}") in message


def stateful(inputs: tuple[str, ...], outputs: tuple[str, ...], batch: Any = "n", steps: Any = "t") -> Any:
    """The plain graph whose LSTM starts from these states and gives back those."""
    lstm = helper.make_node("LSTM", ["xt", "W", "R", "B", "", *inputs], ["Y", "Yh", "Yc"], hidden_size=H)
    states = tuple((name, (1, batch, H)) for name in inputs if name)
    shape = (batch, steps, INPUTS)
    return model([nodes()[0], lstm, *nodes()[2:]], shape=shape, outputs=("y", *outputs), states=states)


@pytest.mark.parametrize(("batch", "steps"), [("n", "t"), (1, 1), (1, "t"), ("n", 7)])
@pytest.mark.parametrize(
    ("inputs", "outputs", "carried"),
    [
        (("h0", "c0"), ("Yh", "Yc"), True),
        (("h0", "c0"), (), False),
        (("h0", "c0"), ("Yh",), False),
        (("h0", ""), ("Yh", "Yc"), False),
        (("", "c0"), ("Yh", "Yc"), False),
    ],
)
def test_state_is_carried_when_it_goes_in_and_comes_out(
    inputs: tuple[str, ...], outputs: tuple[str, ...], carried: bool, batch: Any, steps: Any, tmp_path: Path
) -> None:
    imported = read(stateful(inputs, outputs, batch, steps), tmp_path / "m.onnx")
    assert (imported.carried, imported.fixed_window) == (carried, None)
    if not carried:
        with pytest.raises(UsageError, match="--carry"):
            import_model(tmp_path / "m.onnx", ImportOptions())


def test_a_state_of_a_wrong_shape(tmp_path: Path) -> None:
    lstm = helper.make_node("LSTM", ["xt", "W", "R", "B", "", "h0"], ["Y", "Yh", "Yc"], hidden_size=H)
    proto = model([nodes()[0], lstm, *nodes()[2:]], states=(("h0", (2, "n", H)),))
    assert "initial_h" in refused(proto, tmp_path)


def test_a_chaotic_network_is_not_refused_for_rounding(tmp_path: Path) -> None:
    """Its two biases are summed to float32, which after 70 steps is another trajectory."""
    wide = 128
    shapes = {"W": (1, 4 * wide, INPUTS), "R": (1, 4 * wide, wide), "B": (1, 8 * wide), "FW": (wide, 1)}
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    lstm = helper.make_node("LSTM", ["xt", "W", "R", "B"], ["Y", "Yh", "Yc"], hidden_size=wide)
    assert read(model([nodes()[0], lstm, *nodes()[2:]], weights), tmp_path / "m.onnx").parameters.hidden == (wide,)


LARGE = {"W": (1, 4096, INPUTS), "R": (1, 4096, 1024), "B": (1, 8192), "FW": (1024, 1)}
COSTLY = {
    "large weights over a long fixed sequence": (LARGE, (1, 5000, INPUTS)),
    "a small step 200,000 times": ({}, (1, 200_000, INPUTS)),
}


@pytest.mark.parametrize("what", COSTLY)
def test_a_trial_that_costs_too_much_is_not_begun(what: str, tmp_path: Path) -> None:
    shapes, shape = COSTLY[what]
    weights = {name: np.zeros(sizes, np.float32) for name, sizes in shapes.items()}
    plain = helper.make_node("LSTM", ["xt", "W", "R", "B"], ["Y", "Yh", "Yc"])
    proto = model([nodes()[0], plain, *nodes()[2:]], weights, shape)
    start = time.process_time()
    tracemalloc.start()
    try:
        message = refused(proto, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "too large to prove" in message
    assert time.process_time() - start < 5.0
    assert peak < 300 << 20


def test_products_of_constants_cost_too(tmp_path: Path) -> None:
    square = np.zeros((5000, 5000), np.float32)
    proto = model([*nodes(), helper.make_node("MatMul", ["big", "big"], ["e"])], {"big": square})
    start = time.process_time()
    assert "too large to prove" in refused(proto, tmp_path)
    assert time.process_time() - start < 5.0


def test_a_fixed_batch_with_free_time_is_tried_within_the_bounds(tmp_path: Path) -> None:
    """As exported with the batch that it was trained by, 256 sequences of any length."""
    many = 64
    weights = {
        "W": RNG.standard_normal((1, 4 * many, INPUTS)), "R": RNG.standard_normal((1, 4 * many, many)) / 8,
        "B": RNG.standard_normal((1, 8 * many)), "FW": RNG.standard_normal((many, 1)),
    }  # fmt: skip
    lstm = helper.make_node("LSTM", ["xt", "W", "R", "B"], ["Y", "Yh", "Yc"], hidden_size=many)
    made = nodes()
    made[1] = lstm
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    found = read(model(made, arrays, shape=(256, "t", INPUTS)), tmp_path / "m.onnx")
    assert (found.parameters.hidden, found.fixed_window) == ((many,), None)
