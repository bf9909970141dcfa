"""What is said of a backtest, by its numbers."""

from typing import Any

import pytest

from streamlstm.service.backtest_words import beats_naive, comparison_verdict, sentences


def found(ratio: float | None, *, pairs: int = 500, seasonal: float | None = None, cover: float | None = None) -> Any:
    beside = {"better_streams": 3, "streams": 4}
    return {
        "overall": {
            "pairs": pairs,
            "naive": {"rel_mae": ratio, **beside},
            "seasonal_naive": None if seasonal is None else {"rel_mae": seasonal, **beside},
            "intervals": None if cover is None else {"level": 0.9, "coverage": cover, "width": 2.5},
        },
        "note": None,
        "anomalies": {"per_1000": 2.5, "anomalous": 7},
        "refused": {"out_of_range": 3},
    }


@pytest.mark.parametrize(
    ("ratio", "pairs", "said", "better"),
    [
        (0.77, 500, "it beats repeating the last value: 23 % smaller errors, better on 3 of 4 streams", True),
        (0.99, 500, "it is no better than repeating the last value (RelMAE 0.990), better on 3 of 4 streams", None),
        (1.5, 500, "it is worse than repeating the last value: don't serve it; 50 % larger errors", False),
        (26.0, 500, "it is worse than repeating the last value: don't serve it; errors 26 times as large", False),
        (0.5, 19, "too few to tell whether it beats repeating the last value: 19 forecasts scored", None),
        (None, 500, "it can't be held to repeating the last value: no stream changes", None),
    ],
)
def test_verdicts(ratio: float | None, pairs: int, said: str, better: bool | None) -> None:
    assert sentences(found(ratio, pairs=pairs))[0].startswith(said)
    assert beats_naive(found(ratio, pairs=pairs)) is better


def test_a_mean_over_the_streams_may_hide_most_of_them() -> None:
    few = found(0.9)
    few["overall"]["naive"]["better_streams"] = 1
    assert "10 % smaller errors, though better on only 1 of 4 streams" in sentences(few)[0]


def test_the_other_sentences() -> None:
    assert sentences(found(0.5, seasonal=0.9, cover=0.89))[1:] == [
        "it beats the value one season before: 10 % smaller errors, better on 3 of 4 streams",
        "intervals of 90 % hold 89.0 % of the actual values: they keep what they promise",
        "2.5 of 1,000 events are anomalous (7 in all)",
        "the daemon would have refused 3 events (out_of_range 3)",
    ]
    said = sentences(found(0.5, seasonal=1.3, cover=0.95))
    assert "it is worse than the value one season before (RelMAE 1.300), better on 3 of 4 streams" in said
    assert "intervals of 90 % hold 95.0 % of the actual values: they are too wide" in said
    assert "intervals of 90 % hold 80.0 % of the actual values: they are too narrow" in sentences(found(1, cover=0.8))


def test_intervals_of_constant_streams_are_not_too_wide() -> None:
    constant = found(None, cover=1.0)
    constant["overall"]["intervals"]["width"] = 0.0
    assert "intervals" not in " ".join(sentences(constant))


@pytest.mark.parametrize(
    ("p_value", "statistic", "said"),
    [
        (0.001, -3.0, "over all streams a is better (p = 0.001)"),
        (0.001, 3.0, "over all streams b is better (p = 0.001)"),
        (0.4, 3.0, "over all streams neither is better (p = 0.4)"),
        (None, None, "too few pairs, or too equal, to test all streams together"),
    ],
)
def test_comparisons(p_value: float | None, statistic: float | None, said: str) -> None:
    panel = {
        "first_better": 1, "second_better": 2, "undecided": 3, "rel_mae": 0.9,
        "pooled": {"p_value": p_value, "statistic": statistic},
    }  # fmt: skip
    assert comparison_verdict(panel, ("a", "b")) == (
        f"a beside b: better on 1 stream, worse on 2, undecided on 3; errors 10.0 % smaller (RelMAE 0.900); {said}"
    )
