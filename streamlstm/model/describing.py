"""What a model file says, for people."""

from streamlstm.model.model_file import Model, ScalingKind


def describe(model: Model) -> str:
    """A line for each thing that decides the forecasts, and for where the weights came from."""
    parameters, scaling = model.parameters, model.scaling
    weights = sum(array.size for array in parameters.arrays().values())
    hidden = " + ".join(str(H) for H in parameters.hidden)
    layers = "1 layer" if len(parameters.hidden) == 1 else f"{len(parameters.hidden)} layers"
    advance = (
        f"window of {model.window} events, each forecast from a zero state" if model.window else "carried for ever"
    )
    interval = f"{model.interval_ms} ms" if model.interval_ms else "as observed"
    told = "the value itself" if model.predicts == "value" else "as the change from the last value"
    if model.features is not None:
        told += ", beside a linear forecast from its lags"
    lines = {
        "model": model.model_hash[:12],
        "network": f"LSTM, {layers}, hidden {hidden}, linear output; {weights:,} weights",
        "state": advance,
        "inputs": _short(model.inputs),
        "target": f"{model.inputs[model.target]}, {told}",
        "horizons": f"{_short(tuple(str(step) for step in model.horizons))} steps ahead, interval {interval}",
        "scaling": _scaling(model),
        "origin": ", ".join(f"{key} {value}" for key, value in model.origin.items()) or "unknown",
    }
    if scaling.kind is ScalingKind.RUNNING:
        lines["scaling"] = f"running, per stream, over about {scaling.window} events"
    if model.features is not None:
        features = model.features
        lines["lags"] = f"{_short(tuple(str(lag) for lag in features.lags))}; {len(features.fed)} of them into the LSTM"
        lines["season"] = f"{features.period} events" if features.period else "none"
    if model.level or model.guard:
        guarded = "guarded by naive" if model.guard else "unguarded"
        lines["serving"] = f"intervals at {model.level:.6g}, {guarded}" if model.level else f"no intervals, {guarded}"
    return "\n".join(f"{name:<9} {text}" for name, text in lines.items())


def _scaling(model: Model) -> str:
    scaling = model.scaling
    if scaling.kind is ScalingKind.NONE:
        return "none"
    pairs = zip(model.inputs, scaling.offset, scaling.scale, strict=True)
    words = [f"{name} (x - {offset:g}) / {scale:g}" for name, offset, scale in pairs]
    return f"{scaling.kind}: {_short(tuple(words))}"


def _short(words: tuple[str, ...]) -> str:
    """All of a few, the first and last of many."""
    return ", ".join(words) if len(words) <= 8 else f"{', '.join(words[:4])}, ... {words[-1]} ({len(words)})"
