"""From a foreign file and the user's words to a model."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from streamlstm.errors import InputMissingError, ModelFileError, UsageError
from streamlstm.model.forward import run
from streamlstm.model.importing import ImportOptions, import_model, make_scaling, read_foreign
from streamlstm.model.model_file import Scaling, ScalingKind, load, save

FIXTURES = Path(__file__).parent.parent / "fixtures"
FREE = FIXTURES / "torch/stacked_torch_i3_h32_l2_o4.pt"
FIXED = FIXTURES / "keras/functional.keras"
CARRIED = FIXTURES / "keras/stateful.keras"


def test_the_options_end_up_in_the_model(tmp_path: Path) -> None:
    options = ImportOptions(
        advance=12,
        inputs=("a", "b", "c"),
        target="b",
        horizons=(1, 2, 3, 24),
        predicts="change",
        scaling=Scaling(ScalingKind.MINMAX, (0.0, 1.0, 2.0), (1.0, 2.0, 3.0)),
        interval_ms=1000,
    )
    model, notes = import_model(FREE, options)
    assert (model.window, model.inputs, model.target, model.horizons) == (12, ("a", "b", "c"), 1, (1, 2, 3, 24))
    assert (model.predicts, model.interval_ms, model.scaling) == ("change", 1000, options.scaling)
    assert model.origin["framework"] == "pytorch"
    assert model.origin["file"] == FREE.name
    assert notes == ()
    save(model, tmp_path / "m")
    assert load(tmp_path / "m").model_hash == model.model_hash


def test_the_defaults() -> None:
    model, _ = import_model(FREE, ImportOptions(advance="carry"))
    assert (model.window, model.inputs, model.target) == (0, ("x0", "x1", "x2"), 0)
    assert (model.horizons, model.predicts, model.interval_ms) == ((1, 2, 3, 4), "value", None)
    assert model.scaling.kind is ScalingKind.NONE
    assert import_model(FIXED, ImportOptions())[0].inputs == ("value",)


@pytest.mark.parametrize(
    ("file", "advance", "window", "note"),
    [
        (FREE, "carry", 0, ""),
        (FREE, 5, 5, ""),
        (FIXED, None, 32, "imported as --window 32"),
        (FIXED, "carry", 0, "--carry was said"),
        (FIXED, 32, 32, ""),
        (FIXED, 7, 7, "--window 7 was said"),
        (CARRIED, None, 0, "imported as --carry"),
        (CARRIED, 4, 4, "--window was said"),
    ],
)
def test_how_the_state_lives(file: Path, advance: int | None, window: int, note: str) -> None:
    model, notes = import_model(file, ImportOptions(advance=advance))
    assert model.window == window
    assert note in " ".join(notes)
    assert bool(notes) == bool(note)


def test_a_file_that_leaves_it_open_is_explained() -> None:
    with pytest.raises(UsageError) as error:
        import_model(FREE, ImportOptions())
    for word in ("--carry", "--window T", "zero state", str(FREE)):
        assert word in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        ImportOptions("carry", inputs=("a",)),
        ImportOptions("carry", inputs=("a", "a", "b")),
        ImportOptions("carry", target="temp"),
        ImportOptions("carry", horizons=(1, 2)),
        ImportOptions("carry", horizons=(4, 3, 2, 1)),
        ImportOptions("carry", horizons=(0, 1, 2, 3)),
        ImportOptions("carry", scaling=Scaling(ScalingKind.STANDARD, (0.0,), (1.0,))),
        ImportOptions(advance=100_000),
    ],
)
def test_options_that_do_not_fit(options: ImportOptions) -> None:
    with pytest.raises(UsageError):
        import_model(FREE, options)


def test_scaling_from_words() -> None:
    assert make_scaling(ScalingKind.NONE, 2).scale == (1.0, 1.0)
    assert make_scaling(ScalingKind.RUNNING, 1, window=50).window == 50
    standard = make_scaling(ScalingKind.STANDARD, 2, mean=(1.0, 2.0), std=(3.0,))
    assert (standard.offset, standard.scale) == ((1.0, 2.0), (3.0, 3.0))
    minmax = make_scaling(ScalingKind.MINMAX, 2, low=(1.0,), high=(3.0, 5.0))
    assert (minmax.offset, minmax.scale) == ((1.0, 1.0), (2.0, 4.0))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ScalingKind.NONE, {"mean": (1.0,)}),
        (ScalingKind.STANDARD, {"mean": (1.0,)}),
        (ScalingKind.STANDARD, {"mean": (1.0,), "std": (0.0,)}),
        (ScalingKind.STANDARD, {"mean": (1.0,), "std": (-1.0,)}),
        (ScalingKind.STANDARD, {"mean": (1.0, 2.0, 3.0), "std": (1.0,)}),
        (ScalingKind.STANDARD, {"mean": (float("nan"),), "std": (1.0,)}),
        (ScalingKind.MINMAX, {"low": (1.0,), "high": (1.0,)}),
        (ScalingKind.MINMAX, {"low": (1.0,), "high": (2.0,), "std": (1.0,)}),
    ],
)
def test_scaling_that_makes_no_sense(kind: ScalingKind, words: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UsageError):
        make_scaling(kind, 2, **words)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    pairs = {
        "torch/seed_torch.pt": "m.keras",
        "torch/seed_torch_legacy.pth": "m.onnx",
        "torch/seed_torch.safetensors": "m.pt",
        "keras/seed_keras.keras": "m.h5",
        "keras/seed_keras_legacy.h5": "m.keras",
        "onnx/seed_torch_legacy_op17.onnx": "m",
    }
    for file, name in pairs.items():
        (tmp_path / name).write_bytes((FIXTURES / file).read_bytes())
        assert read_foreign(tmp_path / name).parameters.hidden == (50,)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        read_foreign(tmp_path / "nope.pt")
    with pytest.raises(ModelFileError, match="folder"):
        read_foreign(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputMissingError):
        read_foreign(tmp_path / "dangling")
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not a file"):
        read_foreign(tmp_path / "pipe")


def test_our_own_file_needs_no_import(tmp_path: Path) -> None:
    save(import_model(FREE, ImportOptions("carry"))[0], tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="already a streamlstm model"):
        read_foreign(tmp_path / "m.safetensors")


@pytest.mark.parametrize("steps", [1, 40])
def test_onnx_runtime_agrees_away_from_the_trial(steps: int) -> None:
    """The graph as ONNX Runtime computes it, on other lengths and batches than the importer's proof."""
    rng = np.random.default_rng(steps)
    for name in ("seed_keras_keras", "seed_torch_legacy_op11", "stacked_torch_i3_h32_l2_o4_legacy_op17"):
        path = FIXTURES / f"onnx/{name}.onnx"
        parameters = read_foreign(path).parameters
        x = rng.standard_normal((5, steps, parameters.inputs)).astype(np.float32)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {session.get_inputs()[0].name: x})
        assert np.allclose(run(parameters, x).y[:, -1], y, rtol=1e-5, atol=2e-6)
