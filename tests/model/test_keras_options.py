"""What Keras' configurations may say beside the weights: scaling of the inputs, carried state, half precision."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlstm.model.forward import run
from streamlstm.model.importing import read_foreign
from tests.model.keras_writing import FIXTURES, layer, members, refused, write

STACKED = "stacked_keras_2_64_32_3.keras"  # 2 inputs


def front(class_name: str, **options: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": {"name": class_name.lower(), **options}}


def scaled(path: Path, *layers: dict[str, Any]) -> Path:
    config, weights = members(STACKED)
    config["config"]["layers"][1:1] = layers
    return write(path, config, weights)


RESCALING = front("Rescaling", scale=0.5, offset=0.25)
NORMALIZATION = front("Normalization", axis=[-1], invert=False, mean=3.0, variance=4.0)
PAIR = front("Rescaling", scale=[0.5, 2.0], offset=-1.0)


@pytest.mark.parametrize(
    ("layers", "scale", "offset"),
    [
        ([RESCALING], 0.5, 0.25),
        ([NORMALIZATION], 0.5, -1.5),
        ([PAIR], [0.5, 2.0], -1.0),
        ([RESCALING, {**NORMALIZATION}, PAIR], [0.125, 0.5], [-1.6875, -3.75]),
    ],
)
def test_one_number_scales_every_input(layers: list[dict[str, Any]], scale: Any, offset: Any, tmp_path: Path) -> None:
    plain = read_foreign(FIXTURES / STACKED).parameters
    folded = read_foreign(scaled(tmp_path / "m.keras", *copy.deepcopy(layers))).parameters
    x = np.random.default_rng(1).standard_normal((2, 6, 2))
    expected = run(plain, x * scale + offset).y
    assert np.allclose(run(folded, x).y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [[1.0, 2.0, 3.0], []])
def test_scaling_for_another_count_of_inputs(scale: list[float], tmp_path: Path) -> None:
    message = refused(scaled(tmp_path / "m.keras", RESCALING, front("Rescaling", scale=scale, offset=0.0)))
    assert f"scaling of the inputs; expected 1 or 2 numbers; found {len(scale)}" in message


@pytest.mark.parametrize("flags", [(True, False), (False, True)])
def test_all_layers_carry_their_state_or_none(flags: tuple[bool, bool], tmp_path: Path) -> None:
    config, weights = members(STACKED)
    lstms = [entry for entry in config["config"]["layers"] if entry["class_name"] == "LSTM"]
    for entry, flag in zip(lstms, flags, strict=True):
        entry["config"]["stateful"] = flag
    message = refused(write(tmp_path / "m.keras", config, weights))
    assert f"layer {lstms[1]['config']['name']} (LSTM): stateful" in message
    assert "all LSTM layers or none" in message


@pytest.mark.parametrize("class_name", ["LSTM", "Dense"])
@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("as_text", [True, False])
def test_half_precision_is_told(as_text: bool, policy: str, class_name: str, tmp_path: Path) -> None:
    config, weights = members("seed_keras.keras")
    said = policy if as_text else {"module": "keras", "class_name": "DTypePolicy", "config": {"name": policy}}
    layer(config, class_name)["config"]["dtype"] = said
    notes = read_foreign(write(tmp_path / "m.keras", config, weights)).notes
    assert any(f"half precision ({policy})" in note and "1e-3" in note for note in notes) == ("float16" in policy)
