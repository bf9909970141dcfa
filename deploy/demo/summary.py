"""What the demo says in the end: how the forecasts did on what the model had never seen."""

from collections.abc import Iterator

from deploy.demo.scores import Part, Scoreboard, coverage, geometric_mean
from deploy.demo.view import percent

GOOD_COVERAGE = (0.88, 0.92)  # of intervals that are to hold 90 %


def summary(scores: Scoreboard) -> Iterator[str]:
    """A line for each stream, the best first, and what they come to. A stream of which naive has made no error isn't
    compared.
    """
    parts = {stream: score.held_out for stream, score in scores.streams.items() if score.held_out.ratio is not None}
    ratios = {stream: part.ratio for stream, part in parts.items() if part.ratio is not None}
    name = max(len(stream) for stream in ratios)
    yield "on the 40 % of each series that the model had never seen (naive: the next value is the last one):"
    yield ""
    yield f"  {'stream':{name}}  error / naive  within 90 % interval  anomalies"
    for stream, ratio in sorted(ratios.items(), key=lambda pair: pair[1]):
        within = parts[stream].coverage
        held = "" if within is None else percent(within)
        worse = "" if ratio < 1 else "  (naive is better here)"
        yield f"  {stream:{name}}  {ratio:13.3f}  {held:>20}  {parts[stream].anomalies:9d}{worse}"
    yield ""
    yield from (f"  {line}" for line in _verdict(list(parts.values()), list(ratios.values())))


def _verdict(parts: list[Part], ratios: list[float]) -> Iterator[str]:
    better, intervals = sum(ratio < 1 for ratio in ratios), sum(part.intervals for part in parts)
    yield f"error / naive {geometric_mean(ratios):.3f} (geometric mean), better on {better} of {len(ratios)} streams"
    whole = coverage(parts)
    if whole is not None:
        low, high = GOOD_COVERAGE
        good = sum(part.coverage is not None and low <= part.coverage <= high for part in parts)
        yield (
            f"{percent(whole)} of {intervals:,} values within their 90 % intervals, "
            f"between {percent(low)} and {percent(high)} on {good} of {len(parts)} streams"
        )
    yield f"{sum(part.anomalies for part in parts):,} anomalies"
