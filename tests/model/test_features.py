"""Models with features: saved and loaded bit for bit, part of the hash, and refused where they contradict the rest."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from streamlstm.errors import InvariantError, ModelFileError
from streamlstm.model.describing import describe
from streamlstm.model.features import Features
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import METADATA_KEY, Model, Scaling, ScalingKind, load, save
from tests.model.random_models import random_parameters


def features() -> Features:
    skip = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    return Features(lags=(1, 2, 23, 24), fed=(0, 3), scale_window=1000, period=24, skip=skip)


def model() -> Model:
    """Two lags and one other input into the network."""
    parameters = random_parameters(3, (5,), 2)
    return Model(
        parameters=parameters,
        window=0,
        inputs=("load", "temperature"),
        target=0,
        predicts="change",
        horizons=(1, 24),
        scaling=Scaling(ScalingKind.STANDARD, (0.0, 11.5), (1.0, 4.25)),
        interval_ms=None,
        origin={"recipe": "auto"},
        golden=make_golden(parameters),
        features=features(),
        level=0.9,
        guard=True,
    )


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(model(), tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.features is not None
    assert np.array_equal(loaded.features.skip, features().skip)
    assert not loaded.features.skip.flags.writeable
    for field in ("lags", "fed", "scale_window", "period"):
        assert getattr(loaded.features, field) == getattr(features(), field)
    assert (loaded.level, loaded.guard, loaded.inputs) == (0.9, True, ("load", "temperature"))
    assert loaded.model_hash == model().model_hash
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_every_new_field_is_part_of_the_hash() -> None:
    base, own = model(), features()
    changed = [
        replace(own, lags=(1, 2, 23, 25)),
        replace(own, fed=(1, 3)),
        replace(own, scale_window=999),
        replace(own, period=0),
        replace(own, skip=np.nextafter(own.skip, np.float32(9))),
    ]
    models = [replace(base, model_hash="", features=each) for each in changed]
    models += [replace(base, model_hash="", level=0.8), replace(base, model_hash="", guard=False)]
    assert len({base.model_hash, *(each.model_hash for each in models)}) == len(models) + 1


def test_files_without_features_have_none_of_it(tmp_path: Path) -> None:
    """Their hashes are those of files from before there were features."""
    plain = replace(
        model(), parameters=random_parameters(2, (5,), 2), golden=make_golden(random_parameters(2, (5,), 2)),
        features=None, level=0.0, guard=False, model_hash="",
    )  # fmt: skip
    save(plain, tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    for word in (b"features", b"level", b"guard", b"skip"):
        assert word not in content
    assert plain.model_hash == "aa852fec9c93d86ff836a4d42c5dbd91f04e6ab20df46517a6d9f3674de8fba9"


def described(**changes: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda _, document: document["features"].update(changes)


TAMPERING: list[tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = [
    (lambda arrays, _: arrays.pop("skip.weight"), "skip.weight"),
    (lambda arrays, _: arrays.update({"skip.weight": np.zeros((2, 3), np.float32)}), "skip.weight"),
    (lambda arrays, _: arrays["skip.weight"].fill(np.nan), "skip.weight"),
    (lambda arrays, _: arrays["skip.weight"].fill(0.5), "model_hash"),
    (lambda _, document: document.pop("features"), "skip.weight"),
    (lambda _, document: document.update(features=None), "features"),
    (lambda _, document: document.update(level=1.0), "level"),
    (lambda _, document: document.update(level="0.9"), "level"),
    (lambda _, document: document.update(level=True), "level"),
    (lambda _, document: document.update(level=0.8), "model_hash"),
    (lambda _, document: document.update(guard=1), "guard"),
    (lambda _, document: document.update(window=3), "golden"),
    (described(lags=[]), "skip.weight"),
    (described(lags=[1, 1, 23, 24]), "features.lags"),
    (described(lags=[0, 1, 23, 24]), "features.lags"),
    (described(lags=[1, 2, 23, 100_001]), "features.lags"),
    (described(fed=[0, 4]), "features.fed"),
    (described(fed=[3, 0]), "features.fed"),
    (described(fed=[0]), "inputs"),
    (described(scale_window=1), "scale_window"),
    (described(period=-1), "period"),
    (described(period=48), "model_hash"),
    (described(more=1), "more"),
]


@pytest.mark.parametrize(("change", "word"), TAMPERING, ids=range(len(TAMPERING)))
def test_tampering_is_refused_by_name(
    change: Callable[[dict[str, Any], dict[str, Any]], None], word: str, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    save(model(), path)
    arrays = {name: array.copy() for name, array in safetensors.numpy.load_file(path).items()}
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"][METADATA_KEY])
    change(arrays, document)
    path.write_bytes(safetensors.numpy.save(arrays, metadata={METADATA_KEY: json.dumps(document)}))
    with pytest.raises(ModelFileError) as error:
        load(path)
    assert word in str(error.value)
    assert "expected" in str(error.value)


def test_an_inconsistent_model_is_not_saved(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"predicts": "value"},
        {"window": 5},
        {"inputs": ("load",)},
        {"horizons": ()},
        {"horizons": (1, 100_001)},
        {"scaling": Scaling(ScalingKind.RUNNING, (0.0, 0.0), (1.0, 1.0))},
        {"features": replace(features(), skip=np.zeros((1, 4), np.float32))},
        {"features": replace(features(), fed=())},
        {"level": -0.1},
    ]
    for change in changes:
        with pytest.raises(ModelFileError):
            save(replace(model(), model_hash="", **change), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_skip_of_another_shape_is_a_bug() -> None:
    for skip in (np.zeros((2, 3), np.float32), np.zeros((2, 4)), np.zeros((0, 4), np.float32), np.zeros(4, np.float32)):
        with pytest.raises(InvariantError):
            replace(features(), skip=skip)


def test_it_is_described_in_lines() -> None:
    text = describe(model())
    for word in ("1, 2, 23, 24; 2 of them", "24 events", "intervals at 0.9, guarded", "linear forecast from its lags"):
        assert word in text
