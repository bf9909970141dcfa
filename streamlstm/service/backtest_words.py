"""What a backtest comes to, in sentences: of the document for machines, for people."""

from typing import Any

from streamlstm.history.report import counted

NO_DIFFERENCE = 0.02
"""Errors that differ by less than this share are called equal."""

FEWEST = 20
"""Forecasts below which nothing is concluded."""

HONEST = 0.02
"""Intervals whose realised coverage is that close to what they promise keep it."""

Document = dict[str, Any]


def verdict(found: Document) -> str:
    """Whether a model of the document beats repeating the last value."""
    naive = found["overall"]["naive"]
    ratio = naive["rel_mae"]
    if ratio is None:
        return "it can't be held to repeating the last value: no stream changes"
    if found["overall"]["pairs"] < FEWEST:
        pairs = counted(found["overall"]["pairs"], "forecast")
        return f"too few to tell whether it beats repeating the last value: {pairs} scored (RelMAE {ratio:.3f})"
    streams = f"better on {naive['better_streams']:,} of {counted(naive['streams'], 'stream')}"
    if ratio < 1 - NO_DIFFERENCE:
        if 2 * naive["better_streams"] < naive["streams"]:
            streams = f"though {streams.replace('better on', 'better on only')}"
        return f"it beats repeating the last value: {100 * (1 - ratio):.0f} % smaller errors, {streams}"
    if ratio <= 1 + NO_DIFFERENCE:
        return f"it is no better than repeating the last value (RelMAE {ratio:.3f}), {streams}"
    larger = f"{100 * (ratio - 1):.0f} % larger errors" if ratio < 3 else f"errors {ratio:.3g} times as large"
    return f"it is worse than repeating the last value: don't serve it; {larger}, {streams}"


def beats_naive(found: Document) -> bool | None:
    """None: no difference, or nothing to tell it by."""
    ratio = found["overall"]["naive"]["rel_mae"]
    if ratio is None or abs(ratio - 1) <= NO_DIFFERENCE or found["overall"]["pairs"] < FEWEST:
        return None
    return bool(ratio < 1)


def seasonal_verdict(found: Document) -> str | None:
    seasonal = found["overall"]["seasonal_naive"]
    if seasonal is None or seasonal["rel_mae"] is None or found["overall"]["pairs"] < FEWEST:
        return None
    ratio = seasonal["rel_mae"]
    streams = f"better on {seasonal['better_streams']:,} of {counted(seasonal['streams'], 'stream')}"
    if ratio < 1 - NO_DIFFERENCE:
        return f"it beats the value one season before: {100 * (1 - ratio):.0f} % smaller errors, {streams}"
    word = "no better than" if ratio <= 1 + NO_DIFFERENCE else "worse than"
    return f"it is {word} the value one season before (RelMAE {ratio:.3f}), {streams}"


def interval_verdict(found: Document) -> str | None:
    intervals = found["overall"]["intervals"]
    if intervals is None or intervals["coverage"] is None or found["overall"]["pairs"] < FEWEST:
        return None
    if not intervals["width"]:  # constant streams: what has no width can't be too wide
        return None
    said, held = 100 * intervals["level"], 100 * intervals["coverage"]
    words = f"intervals of {said:.0f} % hold {held:.1f} % of the actual values"
    if abs(held - said) <= 100 * HONEST:
        return f"{words}: they keep what they promise"
    return f"{words}: they are too {'narrow' if held < said else 'wide'}"


def sentences(found: Document) -> list[str]:
    """All of it, the most important first."""
    anomalies = found["anomalies"]
    said = [verdict(found), found["note"], seasonal_verdict(found), interval_verdict(found)]
    if anomalies is not None and anomalies["per_1000"] is not None:
        said.append(f"{anomalies['per_1000']:.2g} of 1,000 events are anomalous ({anomalies['anomalous']:,} in all)")
    if found["refused"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in found["refused"].items())
        said.append(f"the daemon would have refused {sum(found['refused'].values()):,} events ({reasons})")
    return [each for each in said if each is not None]


def comparison_verdict(panel: Document, names: tuple[str, str]) -> str:
    """Of the comparison at one horizon."""
    pooled, ratio = panel["pooled"], panel["rel_mae"]
    counts = (
        f"better on {counted(panel['first_better'], 'stream')}, worse on {panel['second_better']:,}, "
        f"undecided on {panel['undecided']:,}"
    )
    said = f"{names[0]} beside {names[1]}: {counts}"
    if ratio is not None:
        size = "smaller" if ratio < 1 else "larger"
        said += f"; errors {100 * abs(1 - ratio):.1f} % {size} (RelMAE {ratio:.3f})"
    if pooled["p_value"] is None:
        return f"{said}; too few pairs, or too equal, to test all streams together"
    if pooled["p_value"] >= 0.05:
        return f"{said}; over all streams neither is better (p = {pooled['p_value']:.2g})"
    better = names[0] if pooled["statistic"] < 0 else names[1]
    return f"{said}; over all streams {better} is better (p = {pooled['p_value']:.2g})"
