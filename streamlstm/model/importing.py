"""Models of other frameworks -> our model file.

The kind of a file is told by its content; its extension only decides where the content leaves it open.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamlstm.errors import ModelFileError, UsageError
from streamlstm.model.from_keras import read_keras_h5, read_keras_zip
from streamlstm.model.from_onnx import read_onnx
from streamlstm.model.from_safetensors import read_torch_safetensors
from streamlstm.model.from_torch import read_torch
from streamlstm.model.golden import make_golden
from streamlstm.model.imported import Imported
from streamlstm.model.limits import require_file
from streamlstm.model.model_file import Model, Scaling, ScalingKind, check, default_inputs, no_scaling
from streamlstm.model.zip_file import ZipArchive

CARRY_OR_WINDOW = """\
{path} does not say how its state lives, so one of these must be said:
  --window T   the model was trained on windows of T steps, each from a zero state (the usual Keras or PyTorch
               script: X[i : i + T] -> y[i + T]). Every forecast then runs the stream's last T events and equals
               model.predict(last T values).
  --carry      the model was trained with its state carried from batch to batch (stateful=True, or h and c passed on).
               The state lives for ever, one step per event: T times cheaper.
A model trained on windows and carried for ever enters states that it never saw in training."""

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
PICKLE_PROTO = b"\x80"


@dataclass(frozen=True)
class ImportOptions:
    """What the user says beside the file.

    advance: "carry", the window T, or None = as the file says. inputs: names, () = "value" or x0, x1, ...
    target: name of the input that is forecast, None = the first. horizons: () = 1 to O. scaling: None = no scaling.
    level, guard: see Model.
    """

    advance: Literal["carry"] | int | None = None
    inputs: tuple[str, ...] = ()
    target: str | None = None
    horizons: tuple[int, ...] = ()
    predicts: Literal["value", "change"] = "value"
    scaling: Scaling | None = None
    interval_ms: int | None = None
    level: float = 0.0
    guard: bool = False


def import_model(path: Path, options: ImportOptions) -> tuple[Model, tuple[str, ...]]:
    """Read a foreign file -> the model and notes for the user, one sentence each.

    Raises ModelFileError when the file is refused, InputMissingError when it isn't there, UsageError when the options
    don't fit the model or leave open whether its state is carried (message: CARRY_OR_WINDOW).
    """
    imported = read_foreign(path)
    window, notes = _window(path, imported, options.advance)
    parameters = imported.parameters
    inputs = options.inputs or default_inputs(parameters.inputs)
    if len(inputs) != parameters.inputs or len(set(inputs)) != len(inputs):
        found = ",".join(inputs)
        raise UsageError(
            f"--inputs: the model has {parameters.inputs} inputs; expected as many distinct names; found {found}"
        )
    target = options.target or inputs[0]
    if target not in inputs:
        raise UsageError(f"--target: not an input; expected one of {', '.join(inputs)}; found {target}")
    horizons = options.horizons or tuple(range(1, parameters.outputs + 1))
    if len(horizons) != parameters.outputs:
        raise UsageError(f"--horizons: expected {parameters.outputs}, one per output; found {len(horizons)}")
    model = Model(
        parameters=parameters,
        window=window,
        inputs=inputs,
        target=inputs.index(target),
        predicts=options.predicts,
        horizons=horizons,
        scaling=options.scaling or no_scaling(parameters.inputs),
        interval_ms=options.interval_ms,
        origin=imported.origin | {"file": path.name},
        golden=make_golden(parameters, window, str(path)),
        level=options.level,
        guard=options.guard,
    )
    try:
        check(model, str(path))
    except ModelFileError as error:
        raise UsageError(f"the options do not fit: {error}") from error
    return model, imported.notes + notes


def make_scaling(
    kind: ScalingKind,
    inputs: int,
    *,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    low: tuple[float, ...] = (),
    high: tuple[float, ...] = (),
    window: int = 1000,
) -> Scaling:
    """Scaling from the words of the command line: one number per input, or one number for all of them.

    Raises UsageError when a number is missing, of no use to this kind, not finite, or gives a scale that isn't
    positive.
    """
    needs = {ScalingKind.STANDARD: ("--mean", "--std"), ScalingKind.MINMAX: ("--min", "--max")}.get(kind, ())
    given = {"--mean": mean, "--std": std, "--min": low, "--max": high}
    for option, values in given.items():
        if bool(values) != (option in needs):
            found = "nothing" if not values else f"{option} with --scaling {kind}"
            raise UsageError(f"{option}: expected {'a value' if option in needs else 'none'}; found {found}")
        if values and (len(values) not in (1, inputs) or not all(math.isfinite(value) for value in values)):
            raise UsageError(f"{option}: expected 1 or {inputs} finite numbers; found {values}")
    if not needs:
        return Scaling(kind, (0.0,) * inputs, (1.0,) * inputs, window)
    first, second = (_spread(given[option], inputs) for option in needs)
    scale = second if kind is ScalingKind.STANDARD else tuple(b - a for a, b in zip(first, second, strict=True))
    if min(scale) <= 0.0:
        raise UsageError(f"{needs[1]}: expected a positive scale for every input; found {min(scale)}")
    return Scaling(kind, first, scale, window)


def read_foreign(path: Path) -> Imported:
    """Read the weights of a file of PyTorch, Keras, ONNX or safetensors, told apart by content.

    Raises ModelFileError when the file is refused, InputMissingError when it isn't there.
    """
    if path.is_dir() and (path / "saved_model.pb").exists():
        problem = (
            "a TensorFlow SavedModel, a program in a folder; save the model as one file instead: model.save('m.keras')"
        )
        raise ModelFileError(str(path), problem, expected="a file", found="saved_model.pb")
    size = require_file(path)
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"version https://git-lfs"):
        problem = "a Git LFS pointer; fetch the file itself: git lfs pull"
        raise ModelFileError(str(path), problem, expected="a model", found=f"{size} bytes of pointer")
    if start.startswith(b"PK"):
        members = ZipArchive(path).members
        return read_keras_zip(path) if "config.json" in members else read_torch(path, zipped=True)
    if start.startswith(HDF5_SIGNATURE):
        return read_keras_h5(path)
    if start.startswith(PICKLE_PROTO):
        return read_torch(path, zipped=False)
    suffix = path.suffix.lower()
    if suffix == ".safetensors" or start[8:9] == b"{":
        return read_torch_safetensors(path)
    if suffix == ".onnx" or (start[:1] == b"\x08" and suffix not in (".pt", ".pth", ".ckpt", ".keras", ".h5")):
        return read_onnx(path)
    raise ModelFileError(
        str(path),
        "not a model file that can be read",
        expected="a file of PyTorch (zip or pickle), safetensors, Keras (zip or HDF5) or ONNX",
        found=_kind(start),
    )


def _window(path: Path, imported: Imported, advance: Literal["carry"] | int | None) -> tuple[int, tuple[str, ...]]:
    fixed = imported.fixed_window
    if advance is None:
        if fixed is not None:
            return fixed, (f"the file fixes sequences of {fixed} steps: imported as --window {fixed}",)
        if imported.carried:
            return 0, ("the file carries its state from call to call: imported as --carry",)
        raise UsageError(CARRY_OR_WINDOW.format(path=path))
    if advance == "carry":
        said = f"the file fixes sequences of {fixed} steps; --carry was said and holds" if fixed else ""
        return 0, (said,) if said else ()
    if fixed not in (None, advance):
        return advance, (f"the file fixes sequences of {fixed} steps; --window {advance} was said and holds",)
    said = "the file carries its state from call to call; --window was said and holds" if imported.carried else ""
    return advance, (said,) if said else ()


def _spread(values: tuple[float, ...], inputs: int) -> tuple[float, ...]:
    return values * inputs if len(values) == 1 else values


def _kind(start: bytes) -> str:
    if start.lstrip()[:1] == b"<":
        return "markup, perhaps the error page of a download"
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
    return "plain text" if printable else "unknown bytes"
