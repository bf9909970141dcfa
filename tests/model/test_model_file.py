"""Our own model file: what is saved is loaded bit for bit, and nothing tampered with is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from streamlstm.errors import InputMissingError, InvariantError, ModelFileError
from streamlstm.model.describing import describe
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import (
    METADATA_KEY,
    Model,
    Scaling,
    ScalingKind,
    default_inputs,
    hash_of,
    load,
    no_scaling,
    save,
)
from streamlstm.model.parameters import Layer, Parameters, join_biases
from tests.model.random_models import random_parameters


def model(window: int = 0, inputs: int = 2) -> Model:
    parameters = random_parameters(inputs, (5, 3), 2)
    return Model(
        parameters=parameters,
        window=window,
        inputs=("temp", "löad")[:inputs],
        target=inputs - 1,
        predicts="change",
        horizons=(1, 24),
        scaling=Scaling(ScalingKind.STANDARD, (0.1, -3.0)[:inputs], (2.5, 1 / 3)[:inputs]),
        interval_ms=60_000,
        origin={"framework": "test", "file": "a\nb"},
        golden=make_golden(parameters, window),
    )


@pytest.mark.parametrize("window", [0, 1, 5, 100])
def test_what_is_saved_is_loaded(window: int, tmp_path: Path) -> None:
    saved = model(window)
    save(saved, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.model_hash == saved.model_hash == hash_of(loaded)
    fields = ("window", "inputs", "target", "predicts", "horizons", "scaling", "interval_ms", "origin")
    assert all(getattr(loaded, field) == getattr(saved, field) for field in fields)
    for name, array in saved.parameters.arrays().items():
        assert np.array_equal(loaded.parameters.arrays()[name], array)
    assert np.array_equal(loaded.golden.y, saved.golden.y)
    assert np.array_equal(loaded.golden.tolerance, saved.golden.tolerance)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "m"]


def test_the_library_reads_the_file(tmp_path: Path) -> None:
    save(model(), tmp_path / "m")
    found = safetensors.numpy.load_file(tmp_path / "m")
    assert np.array_equal(found["head.weight"], model().parameters.head_weight)


def test_the_hash_covers_what_is_forecast_and_only_that() -> None:
    base = model()
    assert len(base.model_hash) == 64
    changes: list[dict[str, Any]] = [
        {"window": 7},
        {"inputs": ("a", "b")},
        {"target": 0},
        {"predicts": "value"},
        {"horizons": (1, 25)},
        {"interval_ms": None},
        {"scaling": replace(base.scaling, offset=(0.1, -3.0000000001))},
        {"parameters": random_parameters(2, (5, 3), 2, 0.31)},
    ]
    hashes = {replace(base, model_hash="", **change).model_hash for change in changes}
    assert len(hashes | {base.model_hash}) == len(changes) + 1
    assert replace(base, model_hash="", origin={}).model_hash == base.model_hash


def tampered(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """The saved file with its arrays and its description changed."""
    save(model(), path)
    arrays = safetensors.numpy.load_file(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"][METADATA_KEY])
    change(arrays, document)
    path.write_bytes(safetensors.numpy.save(arrays, metadata={METADATA_KEY: json.dumps(document)}))
    return path


def nudged(name: str, by: float) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(arrays: dict[str, Any], _: dict[str, Any]) -> None:
        arrays[name].reshape(-1)[0] += by

    return change


def described(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(_: dict[str, Any], document: dict[str, Any]) -> None:
        *path, last = name.split(".")
        node = document
        for part in path:
            node = node[part]
        node[last] = value

    return change


def swapped(arrays: dict[str, Any], _: dict[str, Any]) -> None:
    """Gates f and g exchanged: the classic misreading."""
    weight = arrays["layers.0.weight_ih"]
    arrays["layers.0.weight_ih"] = np.concatenate([weight[:5], weight[10:15], weight[5:10], weight[15:]])


TAMPERING: list[tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = [
    (swapped, "golden.y"),
    (nudged("layers.1.weight_hh", 0.01), "golden.y"),
    (nudged("layers.1.bias", np.nan), "layers.1.bias"),
    (nudged("golden.y", 1e-3), "golden.y"),
    (nudged("golden.x", np.inf), "golden.x"),
    (lambda arrays, _: arrays.pop("head.bias"), "head.bias"),
    (lambda arrays, _: arrays.update(more=np.zeros(1)), "more"),
    (lambda arrays, _: arrays.update({"head.bias": np.zeros(3, np.float32)}), "head.bias"),
    (lambda arrays, _: arrays.update({"head.bias": np.zeros(2, np.float64)}), "head.bias"),
    (lambda arrays, _: arrays.update({"golden.x": np.zeros((5000, 1, 2), np.float32)}), "golden.x"),
    (lambda arrays, _: arrays.update({"golden.x": np.zeros((0, 1, 2), np.float32)}), "golden.x"),
    (described("window", -1), "window"),
    (described("window", 2), "golden.y"),
    (described("window", True), "window"),
    (described("window", 1e9), "window"),
    (described("format_version", 2), "format_version"),
    (described("target", 2), "target"),
    (described("target", 0), "model_hash"),
    (described("inputs", ["a", "a"]), "inputs"),
    (described("inputs", ["a"]), "inputs"),
    (described("inputs", ["a", ""]), "inputs"),
    (described("inputs", "ab"), "inputs"),
    (described("predicts", "level"), "predicts"),
    (described("horizons", [2, 1]), "horizons"),
    (described("horizons", [0, 1]), "horizons"),
    (described("horizons", [1]), "horizons"),
    (described("horizons", [1, 2.0]), "horizons"),
    (described("scaling.kind", "robust"), "scaling: kind"),
    (described("scaling.scale", [1.0, 0.0]), "scaling.scale"),
    (described("scaling.scale", [1.0, -1.0]), "scaling.scale"),
    (described("scaling.offset", [1.0]), "scaling.offset"),
    (described("scaling.offset", [1.0, 10**400]), "scaling: offset"),
    (described("scaling.more", 1), "scaling"),
    (described("interval_ms", -1), "interval_ms"),
    (described("origin", {"a": 1}), "origin"),
    (described("model_hash", "0" * 64), "model_hash"),
    (described("more", 1), "more"),
    (described("architecture.hidden", []), "hidden"),
    (described("architecture.hidden", [5]), "head.weight"),
    (described("architecture.hidden", [5, 3, 3]), "layers.2"),
    (described("architecture.hidden", [3, 5]), "layers.0"),
    (described("architecture.inputs", 1 << 40), "inputs"),
    (described("architecture", None), "architecture"),
]


@pytest.mark.parametrize(("change", "word"), TAMPERING, ids=range(len(TAMPERING)))
def test_tampering_is_refused_by_name(
    change: Callable[[dict[str, Any], dict[str, Any]], None], word: str, tmp_path: Path
) -> None:
    path = tampered(tmp_path / "m", change)
    with pytest.raises(ModelFileError) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    assert word in str(error.value)
    assert "expected" in str(error.value)


def test_untampered_is_loaded(tmp_path: Path) -> None:
    assert load(tampered(tmp_path / "m", lambda arrays, document: None)).model_hash == model().model_hash


def test_a_missing_file_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        load(tmp_path / "nope")
    with pytest.raises(ModelFileError, match="not a file"):
        load(tmp_path)
    (tmp_path / "f").write_bytes(safetensors.numpy.save({"a": np.zeros(1)}))
    with pytest.raises(ModelFileError, match="streamlstm import"):
        load(tmp_path / "f")


def test_an_inconsistent_model_is_not_saved(tmp_path: Path) -> None:
    for change in ({"horizons": (1,)}, {"inputs": ("a",)}, {"target": 5}, {"scaling": no_scaling(1)}):
        with pytest.raises(ModelFileError):
            save(replace(model(), model_hash="", **change), tmp_path / "m")  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="model_hash"):
        save(replace(model(), window=3), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_parameters_refuse_contradictions() -> None:
    f = np.float32
    with pytest.raises(InvariantError):
        Parameters((), np.zeros((1, 2), f), np.zeros(1, f))
    with pytest.raises(InvariantError):
        Layer(np.zeros((8, 1), f), np.zeros((7, 2), f), np.zeros(8, f))
    with pytest.raises(InvariantError):
        Layer(np.zeros((8, 1)), np.zeros((8, 2), f), np.zeros(8, f))  # type: ignore[arg-type]
    good = random_parameters(1, (2, 3), 1)
    with pytest.raises(InvariantError):
        Parameters(good.layers[::-1], good.head_weight, good.head_bias)
    with pytest.raises(ValueError, match="read-only"):
        good.head_bias[0] = 1.0


def test_two_biases_are_rounded_once() -> None:
    a, b = np.array([1.0], np.float32), np.array([2.0**-24], np.float32)
    c = np.array([2.0**-24], np.float32)
    assert join_biases(a, b, c)[0] == np.float32(1.0 + 2.0**-23)
    assert default_inputs(1) == ("value",)
    assert default_inputs(2) == ("x0", "x1")


def test_a_model_is_described_in_lines() -> None:
    text = describe(model(5))
    assert model(5).model_hash[:12] in text
    for word in ("hidden 5 + 3", "window of 5", "temp, löad", "change", "1, 24", "60000 ms", "(x - 0.1) / 2.5"):
        assert word in text
