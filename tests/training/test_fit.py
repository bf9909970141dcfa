"""The network's training: learns what is there, stops when the tail says so, and goes on from a state to the bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamlstm.errors import BadDataError
from streamlstm.training.checkpoint import packed, read_checkpoint
from streamlstm.training.fit import Fit, FitSettings, Lent
from streamlstm.training.past import Base, Lags, Past, past_of
from streamlstm.training.steps import Trainer
from streamlstm.training.tail import score, tail_of

SETTINGS = FitSettings(hidden=(6,), batch=8, crop=20, every=5, steps=40, learning_rate=1e-2)
BASE = Base(Lags("made", (1, 2), (0, 1)), (1, 2), np.zeros((2, 2)))


def saw(rows: int = 300) -> Past:
    """A saw tooth of six steps: the changes before tell the next."""
    x = np.tile([0.0, 1.0, 2.0, 3.0, 2.0, 1.0], rows // 6 + 1)[:rows]
    return past_of(x, np.empty((rows, 0), np.float32), np.array([0, rows]))


def made(past: Past, settings: FitSettings = SETTINGS, seed: int = 3) -> Fit:
    return Fit(past, past.start[1:], BASE, settings, seed, Lent())


def scorer(past: Past) -> Callable[[Trainer], float]:
    tail = tail_of(past, past.start[:-1] + past.lengths // 2)
    return lambda trainer: score(past, tail, BASE, trainer, 0).mean


def finished(fit: Fit, score_of: Callable[[Trainer], float] | None = None) -> Fit:
    for _ in fit.run(score_of, SETTINGS.steps):
        pass
    return fit


def test_it_learns_what_is_there() -> None:
    past = saw()
    fit = made(past, replace(SETTINGS, steps=300, every=50))
    looks = [look for look in fit.run(scorer(past), 300) if look]
    assert [look.step for look in looks] == list(range(50, 301, 50))
    assert fit.best_score < -1.0
    assert looks[-1].loss < 0.5 * looks[0].loss
    assert fit.best_step > 0


def test_it_begins_where_the_skip_connection_ends() -> None:
    past = saw()
    fit = made(past)
    assert not fit.averaged().head_weight.any()
    assert scorer(past)(Trainer(fit.averaged())) == pytest.approx(
        score(past, tail_of(past, past.lengths // 2), BASE, None, 0).mean
    )


def test_without_a_gain_it_ends_early_and_keeps_the_beginning() -> None:
    random = np.random.default_rng(1)
    past = past_of(np.cumsum(random.normal(size=200)), np.empty((200, 0), np.float32), np.array([0, 200]))
    fit = made(past)
    for _ in fit.run(lambda trainer: 0.0, 1000):
        pass
    assert (fit.steps, fit.best_step) == (SETTINGS.every * SETTINGS.patience, 0)
    assert not fit.weights_at_best().head_weight.any()


@pytest.mark.parametrize("left_at", [1, 5, 13, 40])
def test_it_goes_on_from_a_checkpoint_to_the_bit(left_at: int, tmp_path: Path) -> None:
    past = saw()
    whole = finished(made(past), scorer(past))
    first = made(past)
    for _ in first.run(scorer(past), 40):
        if first.steps == left_at:
            break
    (tmp_path / "c").write_bytes(packed("of this", 1.5, {"tail": first}))
    found = read_checkpoint(tmp_path / "c")
    assert (found.fingerprint, found.elapsed) == ("of this", 1.5)
    second = made(past)
    found.restore("tail", second)
    found.restore("all", second)  # had not begun
    finished(second, scorer(past))
    assert second.averaged().vector.tobytes() == whole.averaged().vector.tobytes()
    assert second.best.tobytes() == whole.best.tobytes()
    assert second.looks == whole.looks


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    past = saw()
    (tmp_path / "c").write_bytes(packed("x", 0.0, {"tail": made(past)}))
    with pytest.raises(BadDataError, match="tail: damaged"):
        read_checkpoint(tmp_path / "c").restore("tail", made(past, replace(SETTINGS, hidden=(7,))))


@pytest.mark.parametrize("content", [b"", bytes(64), b"not a checkpoint" * 10])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(BadDataError):
        read_checkpoint(tmp_path / "c")


def test_an_explosion_is_caught() -> None:
    past = saw()
    fit = made(past, replace(SETTINGS, learning_rate=1e30, clip_norm=1e30))
    with pytest.raises(BadDataError, match="exploded; a smaller --learning-rate"):
        finished(fit)


def test_streams_too_short_for_a_crop() -> None:
    x = np.concatenate([[0.0], np.arange(3.0), np.tile([0.0, 1.0], 4)])
    past = past_of(x, np.empty((len(x), 0), np.float32), np.array([0, 1, 4, 12]))
    assert finished(made(past)).steps == SETTINGS.steps


def test_nothing_to_learn_from_is_refused() -> None:
    past = past_of(np.array([1.0]), np.empty((1, 0), np.float32), np.array([0, 1]))
    with pytest.raises(BadDataError, match="a few rows"):
        made(past)
