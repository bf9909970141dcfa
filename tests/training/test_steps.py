"""The trainer's promises: same bytes on any number of threads, carried state, learning, refusals; and that the daemon
doesn't load it.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reference import Oracle, random_parameters

from streamlstm.errors import InvariantError
from streamlstm.training.adam import AdamSettings
from streamlstm.training.losses import Huber, Quantile
from streamlstm.training.steps import Trainer
from streamlstm.training.tape import State
from streamlstm.training.weights import weights_of

INPUTS, HIDDEN, OUTPUTS = 2, (20, 13), 2
Array = NDArray[np.float32]


def made_trainer(**settings: Any) -> Trainer:
    parameters = random_parameters(np.random.default_rng(1), INPUTS, HIDDEN, OUTPUTS)
    return Trainer(weights_of(parameters), **settings)


def made_batch(sequences: int, steps: int = 12, seed: int = 2) -> tuple[Array, Array]:
    """The target is the running mean of the inputs: there is something to learn."""
    x = np.random.default_rng(seed).normal(size=(sequences, steps, INPUTS)).astype(np.float32)
    return x, (np.cumsum(x, axis=1) / np.arange(1, steps + 1)[:, None]).astype(np.float32)


def bytes_after(steps: int, sequences: int, **settings: Any) -> bytes:
    trainer = made_trainer(dropout=0.3, seed=9, adam=AdamSettings(clip_norm=0.5), **settings)
    state, said = None, b""
    for step in range(steps):
        outcome = trainer.step(*made_batch(sequences, seed=step), None, state)
        state = outcome.state
        said += np.array([outcome.loss, outcome.gradient_norm]).tobytes()
        said += b"".join(array.tobytes() for array in (*state.h, *state.c))
    return said + b"".join(array.tobytes() for array in trainer.arrays().values())


@pytest.mark.parametrize("sequences", [7, 50, 70])
def test_the_same_bytes_on_any_number_of_threads(sequences: int) -> None:
    alone = bytes_after(5, sequences)
    assert alone == bytes_after(5, sequences)
    with ThreadPoolExecutor(3) as executor:
        for threads in (1, 2, 3, 4):
            assert bytes_after(5, sequences, executor=executor, threads=threads) == alone


def test_a_sequences_forecasts_do_not_depend_on_its_neighbours() -> None:
    trainer = made_trainer()
    x, _ = made_batch(70)
    together, state = trainer.forward(x)
    for row in (0, 15, 16, 69):
        alone, own = trainer.forward(x[row : row + 1])
        assert alone.tobytes() == together[row : row + 1].tobytes()
        assert own.c[1].tobytes() == state.c[1][row : row + 1].tobytes()


def test_forward_is_the_oracle() -> None:
    trainer = made_trainer()
    x, _ = made_batch(5)
    y_hat, state = trainer.forward(x)
    oracle = Oracle(trainer.parameters())
    for sequence in range(len(x)):
        expected = np.stack([oracle.event(sequence, event) for event in x[sequence]])
        np.testing.assert_allclose(y_hat[sequence], expected, rtol=1e-5, atol=1e-6)
        for k, (h, c) in enumerate(oracle.state(sequence)):
            np.testing.assert_allclose(state.h[k][sequence], h, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(state.c[k][sequence], c, rtol=1e-5, atol=1e-6)


def test_a_carried_state_goes_on_where_the_sequence_was_cut() -> None:
    trainer = made_trainer()
    x, _ = made_batch(20)
    whole, end = trainer.forward(x)
    first, between = trainer.forward(x[:, :5])
    second, after = trainer.forward(x[:, 5:], between)
    assert np.concatenate([first, second], axis=1).tobytes() == whole.tobytes()
    assert all(a.tobytes() == b.tobytes() for a, b in zip((*end.h, *end.c), (*after.h, *after.c), strict=True))


def test_a_state_given_is_left_alone() -> None:
    trainer = made_trainer()
    x, y = made_batch(20)
    _, state = trainer.forward(x)
    before = [array.copy() for array in (*state.h, *state.c)]
    trainer.step(x, y, None, state)
    assert all((old == new).all() for old, new in zip(before, (*state.h, *state.c), strict=True))


def test_gradients_take_no_step() -> None:
    trainer = made_trainer(dropout=0.5)
    x, y = made_batch(20)
    first = trainer.gradients(x, y)
    second = trainer.gradients(x, y)
    assert trainer.steps == 0
    assert all(array.tobytes() == second.by_name[name].tobytes() for name, array in first.by_name.items())
    assert trainer.step(x, y).loss == first.loss


def test_every_step_drops_something_else() -> None:
    trainer = made_trainer(dropout=0.5, adam=AdamSettings(learning_rate=0.0))
    x, y = made_batch(20)
    assert len({trainer.step(x, y).loss for _ in range(4)}) == 4


def test_it_learns_and_the_learning_rate_may_change() -> None:
    trainer = made_trainer(adam=AdamSettings(learning_rate=5e-3))
    x, y = made_batch(64)
    losses = [trainer.step(x, y).loss for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]
    trainer.learning_rate = 0.0
    before = trainer.arrays()
    trainer.step(x, y)
    assert all((array == before[name]).all() for name, array in trainer.arrays().items())


def test_shapes_of_batches_may_change() -> None:
    trainer = made_trainer()
    for sequences, steps in [(64, 3), (5, 9), (33, 1), (1, 1), (100, 2), (64, 3), (17, 4)]:
        x, y = made_batch(sequences, steps)
        fresh = made_trainer().gradients(x, y)
        found = trainer.gradients(x, y)
        assert all(array.tobytes() == found.by_name[name].tobytes() for name, array in fresh.by_name.items())


def test_a_loss_that_is_not_finite_is_told() -> None:
    trainer = made_trainer()
    x, y = made_batch(20)
    x[3, 4] = np.nan
    outcome = trainer.step(x, y)
    assert np.isnan(outcome.loss)
    assert np.isnan(outcome.gradient_norm)


def refused(*words: str, **settings: Any) -> None:
    with pytest.raises(InvariantError) as caught:
        made_trainer(**settings)
    assert all(word in str(caught.value) for word in words)


def test_settings_are_checked() -> None:
    refused("dropout", "1.0", dropout=1.0)
    refused("threads", "0", threads=0)
    refused("most_shards", "0", most_shards=0)
    refused("levels", "2 outputs", loss=Quantile((0.5,)))
    with pytest.raises(InvariantError, match="delta"):
        Huber(0.0)
    with pytest.raises(InvariantError, match="levels"):
        Quantile((0.5, 1.0))


def test_batches_are_checked() -> None:
    trainer = made_trainer()
    x, y = made_batch(4)
    counted = np.zeros(y.shape, bool)
    state = State(tuple(np.zeros((4, h)) for h in HIDDEN), tuple(np.zeros((3, h)) for h in HIDDEN))
    for what, arguments in {
        "x: ": (x[:, :, :1], y),
        "y, counted: ": (x, y[:3]),
        "counted: expected a target": (x, y, counted),
        "state.c: ": (x, y, None, state),
    }.items():
        with pytest.raises(InvariantError, match=what):
            trainer.step(*arguments)
    with pytest.raises(InvariantError, match="x: "):
        trainer.step(x[:0], y[:0])


def test_the_daemon_does_not_load_training() -> None:
    program = """
import pkgutil, sys
import streamlstm.service as service, streamlstm.cli.main
for module in pkgutil.iter_modules(service.__path__):
    if not module.name.startswith("learn"):
        __import__(f"streamlstm.service.{module.name}")
kernels = {f"streamlstm.kernels.{name}" for name in ("bptt", "gates", "matmul", "loss", "adam", "dropout")}
print(sorted((kernels | {"streamlstm.training"}) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
