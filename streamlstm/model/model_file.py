"""The model file: one safetensors file with the weights, the golden vectors and a JSON description.

Tensors: layers.<k>.weight_ih|weight_hh|bias, head.weight, head.bias (float32), golden.x (float32), golden.y (float64);
skip.weight (float32) where the model has features.
Metadata of the safetensors header: `streamlstm`, a JSON object of the fields of `Model`, the format version and the
model hash.

The model hash identifies what is forecast: it covers the weights and every field but `origin` and the golden vectors,
which follow from the weights. Two models with equal hashes give equal forecasts.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import safetensors.numpy

from streamlstm.errors import ModelFileError
from streamlstm.model.features import MAX_LAG, MAX_LAGS, MAX_SCALE_WINDOW, Features, increasing
from streamlstm.model.fields import Fields
from streamlstm.model.golden import Golden, check_golden, golden_of
from streamlstm.model.limits import MAX_LAYERS
from streamlstm.model.parameters import Float32, Float64, Layer, Parameters
from streamlstm.model.safetensors_file import read_safetensors
from streamlstm.model.strict_json import parse_object
from streamlstm.model.tensors import Tensor, read_exact, require_shape

METADATA_KEY = "streamlstm"
SKIP = "skip.weight"
FORMAT_VERSION = 1
MAX_WINDOW = 65_536
MAX_INPUTS = 65_536
MAX_HORIZON = 1_000_000_000
MAX_INTERVAL_MS = 366 * 24 * 3_600_000


class ScalingKind(StrEnum):
    NONE = "none"
    STANDARD = "standard"
    MINMAX = "minmax"
    RUNNING = "running"


@dataclass(frozen=True)
class Scaling:
    """How inputs are scaled before the first layer: x' = (x - offset) / scale, one offset and scale per input.

    NONE: offsets 0 and scales 1. STANDARD: mean and standard deviation. MINMAX: minimum and range.
    RUNNING: per stream and causal, over about `window` events; offset and scale are unused (0 and 1).
    A forecast is scaled back with the offset and scale of the target input.
    """

    kind: ScalingKind
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    window: int = 1000


@dataclass(frozen=True, eq=False)
class Model:
    """Everything that decides what is forecast.

    window: 0 = the state is carried for ever; T = each forecast runs the last T events from a zero state.
    inputs: one name per input. target: index of the input that is forecast. predicts: the value itself, or its change
    from the last value. horizons: one per output, in steps ahead. interval_ms: time between events, None = as observed.
    origin: where the weights came from, for people. model_hash: 64 hex digits.
    features: what the network sees of the target instead of its value, and the base that it is a change from; then
    `predicts` is "change", `window` 0, and only the other inputs are scaled. level: of the central prediction
    intervals; 0: none. guard: whether model, naive and seasonal naive are weighed by their errors so far.
    """

    parameters: Parameters
    window: int
    inputs: tuple[str, ...]
    target: int
    predicts: Literal["value", "change"]
    horizons: tuple[int, ...]
    scaling: Scaling
    interval_ms: int | None
    origin: dict[str, str]
    golden: Golden
    model_hash: str = ""
    features: Features | None = None
    level: float = 0.0
    guard: bool = False

    def __post_init__(self) -> None:
        if not self.model_hash:
            object.__setattr__(self, "model_hash", hash_of(self))


def no_scaling(inputs: int) -> Scaling:
    """Inputs go in as they are."""
    return Scaling(ScalingKind.NONE, (0.0,) * inputs, (1.0,) * inputs)


def default_inputs(inputs: int) -> tuple[str, ...]:
    """("value",) for one input, else x0, x1, ..."""
    return ("value",) if inputs == 1 else tuple(f"x{k}" for k in range(inputs))


def hash_of(model: Model) -> str:
    """SHA-256 over the description and the weights, each with its name and shape; independent of the file's layout."""
    digest = hashlib.sha256(_canonical(_describe(model)))
    for name, array in _arrays(model).items():
        digest.update(f"{name} {array.shape} ".encode())
        digest.update(array.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _arrays(model: Model) -> dict[str, Float32]:
    """Every array that decides what is forecast, by its name in the file."""
    skip = {} if model.features is None else {SKIP: model.features.skip}
    return model.parameters.arrays() | skip


def save(model: Model, path: Path) -> None:
    """Write the file whole or not at all. Raises ModelFileError when the model contradicts itself, OSError from the
    disk.
    """
    check(model, str(path))
    arrays: dict[str, Any] = dict(_arrays(model))
    arrays["golden.x"] = model.golden.x
    arrays["golden.y"] = model.golden.y
    document = _describe(model) | {"origin": model.origin, "model_hash": model.model_hash}
    content = safetensors.numpy.save(arrays, metadata={METADATA_KEY: _canonical(document).decode()})
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def is_model_file(metadata: dict[str, str]) -> bool:
    """Whether the metadata of a safetensors header is that of a model file of ours."""
    return METADATA_KEY in metadata


def load(path: Path) -> Model:
    """Read a model file, check every field, the hash and, in float64, the golden vectors.

    Raises InputMissingError when there is no such file, ModelFileError on anything off.
    """
    where = str(path)
    tensors, metadata = read_safetensors(path)
    if not is_model_file(metadata):
        raise ModelFileError(
            f"{where}: __metadata__",
            "not a streamlstm model file; a foreign model is read by `streamlstm import`",
            expected=f"the key {METADATA_KEY}",
            found=", ".join(sorted(metadata))[:120] or "no metadata",
        )
    fields = Fields(parse_object(metadata[METADATA_KEY].encode(), f"{where}: {METADATA_KEY}"), where)
    fields.integer("format_version", FORMAT_VERSION, FORMAT_VERSION)
    parameters = _read_parameters(fields.object("architecture"), tensors, where)
    window = fields.integer("window", 0, MAX_WINDOW)
    golden = _read_golden(parameters, window, tensors, where)
    features = _read_features(fields, parameters.outputs, tensors, where)
    if tensors:
        raise ModelFileError(
            f"{where}: {min(tensors)[:200]}", "unknown tensor", expected="none left", found=str(len(tensors))
        )
    model = Model(
        parameters=parameters,
        window=window,
        inputs=fields.texts("inputs"),
        target=fields.integer("target", 0, MAX_INPUTS),
        predicts=_read_predicts(fields),
        horizons=fields.integers("horizons"),
        scaling=_read_scaling(fields.object("scaling")),
        interval_ms=fields.integer("interval_ms", 0, MAX_INTERVAL_MS) or None,
        origin=fields.text_by_name("origin"),
        golden=golden,
        model_hash=fields.text("model_hash"),
        features=features,
        level=fields.number("level") if fields.has("level") else 0.0,
        guard=fields.has("guard") and fields.boolean("guard"),
    )
    fields.finish()
    check(model, where)
    return model


def check(model: Model, where: str) -> None:
    """Raises ModelFileError where the fields of a model contradict one another, the weights or the hash."""
    features, scaling, n_outputs = model.features, model.scaling, model.parameters.outputs
    n_inputs = model.parameters.inputs if features is None else len(model.inputs)
    rules = (
        ("window", 0 <= model.window <= MAX_WINDOW, f"0 to {MAX_WINDOW}", model.window),
        ("inputs", len(model.inputs) == n_inputs, f"{n_inputs} names", len(model.inputs)),
        ("inputs", len(set(model.inputs)) == n_inputs and all(model.inputs), "distinct, non-empty names", model.inputs),
        ("target", 0 <= model.target < n_inputs, f"0 to {n_inputs - 1}", model.target),
        ("predicts", model.predicts in ("value", "change"), "value or change", model.predicts),
        ("horizons", len(model.horizons) == n_outputs, f"{n_outputs} horizons, one per output", len(model.horizons)),
        ("horizons", increasing(model.horizons, 1, MAX_HORIZON), f"increasing, 1 to {MAX_HORIZON}", model.horizons),
        ("scaling.offset", len(scaling.offset) == n_inputs, f"{n_inputs} numbers", len(scaling.offset)),
        ("scaling.offset", all(math.isfinite(value) for value in scaling.offset), "finite numbers", scaling.offset),
        ("scaling.scale", len(scaling.scale) == n_inputs, f"{n_inputs} numbers", len(scaling.scale)),
        ("scaling.scale", all(1e-300 < value < 1e300 for value in scaling.scale), "positive numbers", scaling.scale),
        ("scaling.window", 2 <= scaling.window <= MAX_HORIZON, f"2 to {MAX_HORIZON}", scaling.window),
        ("interval_ms", 0 < (model.interval_ms or 1) <= MAX_INTERVAL_MS, f"1 to {MAX_INTERVAL_MS}", model.interval_ms),
        ("level", 0.0 <= model.level < 1.0, "0 for no intervals, else below 1", model.level),
        *(() if features is None else _rules_of_features(model, features)),
        ("model_hash", model.model_hash == hash_of(model), "the hash of the content", model.model_hash[:64]),
    )
    for field, holds, expected, found in rules:
        if not holds:
            raise ModelFileError(f"{where}: {field}", "wrong value", expected=expected, found=str(found)[:200])


def _rules_of_features(model: Model, features: Features) -> tuple[tuple[str, bool, str, object], ...]:
    lags, fed = features.lags, features.fed
    seen = len(fed) + len(model.inputs) - 1
    kinds = (ScalingKind.NONE, ScalingKind.STANDARD)
    return (
        ("inputs", seen == model.parameters.inputs, f"{model.parameters.inputs} that the network sees", seen),
        ("features.lags", 1 <= len(lags) <= MAX_LAGS, f"1 to {MAX_LAGS} lags", len(lags)),
        ("features.lags", increasing(lags, 1, MAX_LAG), f"increasing lags from 1 to {MAX_LAG}", lags),
        ("features.fed", increasing(fed, 0, len(lags) - 1), f"increasing indices below {len(lags)}", fed),
        ("features.scale_window", 2 <= features.scale_window <= MAX_SCALE_WINDOW, "2 or more", features.scale_window),
        ("features.period", 0 <= features.period <= MAX_LAG, f"0 to {MAX_LAG}", features.period),
        ("features", len(features.skip) == model.parameters.outputs, "a row of skip per output", len(features.skip)),
        ("predicts", model.predicts == "change", "change, as the model has features", model.predicts),
        ("window", model.window == 0, "0, as the model has features", model.window),
        ("scaling", model.scaling.kind in kinds, "none or standard, as the model has features", model.scaling.kind),
        (
            "horizons",
            max(model.horizons, default=0) <= MAX_LAG,
            f"at most {MAX_LAG}, as the model has features",
            model.horizons,
        ),
    )


def _describe(model: Model) -> dict[str, Any]:
    """The hashed part of the description. What most models don't have is left out where it isn't used, so that their
    hashes are those of the versions before it.
    """
    parameters, scaling, features = model.parameters, model.scaling, model.features
    document: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "architecture": {
            "inputs": parameters.inputs,
            "hidden": list(parameters.hidden),
            "outputs": parameters.outputs,
        },
        "window": model.window,
        "inputs": list(model.inputs),
        "target": model.target,
        "predicts": model.predicts,
        "horizons": list(model.horizons),
        "scaling": {
            "kind": str(scaling.kind),
            "offset": [float(value) for value in scaling.offset],
            "scale": [float(value) for value in scaling.scale],
            "window": scaling.window,
        },
        "interval_ms": model.interval_ms or 0,
    }
    if features is not None:
        document["features"] = {
            "lags": list(features.lags),
            "fed": list(features.fed),
            "scale_window": features.scale_window,
            "period": features.period,
        }
    if model.level:
        document["level"] = float(model.level)
    if model.guard:
        document["guard"] = True
    return document


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _read_parameters(architecture: Fields, tensors: dict[str, Tensor], where: str) -> Parameters:
    inputs = architecture.integer("inputs", 1, MAX_INPUTS)
    hidden = architecture.integers("hidden")
    outputs = architecture.integer("outputs", 1, MAX_INPUTS)
    architecture.finish()
    if not 1 <= len(hidden) <= MAX_LAYERS or min(hidden) < 1:
        place = architecture.place("hidden")
        raise ModelFileError(place, "wrong value", expected=f"1 to {MAX_LAYERS} sizes", found=str(hidden)[:120])
    layers: list[Layer] = []
    below = inputs
    for k, H in enumerate(hidden):
        weight_ih = _single(tensors, f"layers.{k}.weight_ih", (4 * H, below), where)
        weight_hh = _single(tensors, f"layers.{k}.weight_hh", (4 * H, H), where)
        layers.append(Layer(weight_ih, weight_hh, _single(tensors, f"layers.{k}.bias", (4 * H,), where)))
        below = H
    head_weight = _single(tensors, "head.weight", (outputs, below), where)
    return Parameters(tuple(layers), head_weight, _single(tensors, "head.bias", (outputs,), where))


def _single(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], where: str) -> Float32:
    array: Float32 = read_exact(_take(tensors, name, "float32", shape, where))
    return array


def _take(tensors: dict[str, Tensor], name: str, dtype: str, shape: tuple[int, ...], where: str) -> Tensor:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise ModelFileError(f"{where}: {name}", "missing tensor", expected=f"{dtype} {shape}", found="nothing")
    if tensor.dtype != dtype:
        raise ModelFileError(tensor.where, "wrong dtype", expected=dtype, found=tensor.dtype)
    require_shape(tensor, shape)
    return tensor


def _read_golden(parameters: Parameters, window: int, tensors: dict[str, Tensor], where: str) -> Golden:
    stored = tensors.get("golden.x")
    n, T = stored.shape[:2] if stored is not None and len(stored.shape) == 3 else (1, 1)
    if n * T > 4096:
        raise ModelFileError(f"{where}: golden.x", "wrong shape", expected="at most 4096 steps", found=str((n, T)))
    x = _single(tensors, "golden.x", (n, T, parameters.inputs), where)
    y: Float64 = read_exact(_take(tensors, "golden.y", "float64", (n, T, parameters.outputs), where))
    found = golden_of(parameters, window, x, where)
    golden = Golden(x, y, found.tolerance)
    check_golden(golden, lambda _: found.y, where)
    return golden


def _read_features(fields: Fields, outputs: int, tensors: dict[str, Tensor], where: str) -> Features | None:
    if not fields.has("features"):
        return None
    entry = fields.object("features")
    lags = entry.integers("lags")
    features = Features(
        lags=lags,
        fed=entry.integers("fed"),
        scale_window=entry.integer("scale_window", 2, MAX_SCALE_WINDOW),
        period=entry.integer("period", 0, MAX_LAG),
        skip=_single(tensors, SKIP, (outputs, len(lags)), where),
    )
    entry.finish()
    return features


def _read_predicts(fields: Fields) -> Literal["value", "change"]:
    word = fields.text("predicts")
    if word == "value":
        return "value"
    if word == "change":
        return "change"
    raise ModelFileError(fields.place("predicts"), "wrong value", expected="value or change", found=word[:60])


def _read_scaling(fields: Fields) -> Scaling:
    word = fields.text("kind")
    if word not in tuple(ScalingKind):
        raise ModelFileError(fields.place("kind"), "wrong value", expected=" ".join(ScalingKind), found=word[:60])
    offset, scale = fields.numbers("offset"), fields.numbers("scale")
    scaling = Scaling(ScalingKind(word), offset, scale, fields.integer("window", 2, MAX_HORIZON))
    fields.finish()
    return scaling
