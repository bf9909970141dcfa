"""Training steps: a batch of sequences forward, its loss, back-propagation through time, and Adam.

Letters: B sequences of a batch, T steps, I inputs, H hidden size of a layer, O outputs, P weights in all.

The batch is cut into shards of whole sequences by its size alone. Each shard adds up a gradient of its own, and these
are added in the order of the shards: the weights after a step don't depend, to the last bit, on how many threads there
were. The shards are handed to the executor that the caller lends; kernels release the GIL.
"""

from collections.abc import Callable
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import InvariantError
from streamlstm.kernels.adam import sum_shards
from streamlstm.kernels.dropout import draw_mask
from streamlstm.kernels.loss import loss_and_slope
from streamlstm.model.parameters import Parameters
from streamlstm.training.adam import Adam, AdamSettings
from streamlstm.training.losses import Loss, SquaredError, kernel_terms
from streamlstm.training.tape import State, Tape, zero_state
from streamlstm.training.weights import Arranged, Weights

Reals = NDArray[Any]

_SHARD_STEP = 8  # sequences that share the registers in kernels.matmul
_SMALLEST_SHARD = 2 * _SHARD_STEP  # each load of a layer's weights then feeds two tiles
_TAPES_KEPT = 4  # shapes of shards: the full ones, and the last of a whole and of a partial batch


@dataclass(frozen=True)
class Outcome:
    """Of a step: the loss before it, the norm of the gradient before clipping, and the state after the last input."""

    loss: float
    gradient_norm: float
    state: State


@dataclass(frozen=True)
class Gradients:
    """The loss and its derivatives: by each array of model.Parameters, by x [B, T, I], by the initial state."""

    loss: float
    by_name: dict[str, Reals]
    d_x: Reals
    d_state: State
    state: State


@dataclass(frozen=True)
class _Batch:
    """What all shards read. x [B, T, I], y and counted [B, T, O]."""

    x: Reals
    y: Reals
    counted: NDArray[np.bool_]
    state: State
    scale: float
    dropout: float
    with_inputs: bool


@dataclass
class _Results:
    """Written by the shards, each its own part; the last two when the derivatives by inputs are asked for."""

    losses: NDArray[np.float64]
    states: list[State]
    d_x: list[Reals]
    d_states: list[State]


class Trainer:
    """Trains `weights` in place, in their dtype: float32, or float64 for tests.

    loss         the mean over all counted targets is minimised
    dropout      probability with which an element of a layer's h doesn't reach the next layer (inverted dropout);
                 nothing with one layer. Masks follow from `seed` and the number of the step
    executor     lends up to `threads` - 1 threads beside the caller's; neither changes a bit
    most_shards  of a batch; memory is most_shards x P for gradients. Another number changes the order of sums

    Not thread-safe: one caller at a time.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        loss: Loss | None = None,
        adam: AdamSettings | None = None,
        dropout: float = 0.0,
        seed: int = 0,
        executor: Executor | None = None,
        threads: int = 1,
        most_shards: int = 16,
    ) -> None:
        """Raises InvariantError for settings that make no sense."""
        if not 0.0 <= dropout < 1.0:
            raise InvariantError(f"Trainer: dropout: expected within [0, 1), found {dropout}")
        if min(threads, most_shards) < 1:
            raise InvariantError(f"Trainer: threads, most_shards: expected >= 1, found {threads}, {most_shards}")
        self._weights = weights
        self._sizes = weights.sizes
        self._dtype = dtype = weights.vector.dtype
        self._arranged = Arranged(self._weights)
        self._adam = Adam(self._weights, adam or AdamSettings())
        self._kind, self._loss_parameters = kernel_terms(loss or SquaredError(), self._sizes.outputs)
        self._dropout = dropout
        self._seed = seed
        self._executor = executor
        self._workers = threads if executor is not None else 1
        self._most_shards = most_shards
        self._tapes: list[dict[tuple[int, int], Tape]] = [{} for _ in range(self._workers)]
        self._vectors = np.zeros((0, self._sizes.total), dtype)
        self._gradients: list[Weights] = []  # of each shard, over a row of _vectors
        self._total = np.zeros(self._sizes.total, dtype)

    @property
    def steps(self) -> int:
        """Steps done so far."""
        return self._adam.steps

    @property
    def learning_rate(self) -> float:
        return self._adam.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._adam.learning_rate = rate

    @property
    def adam(self) -> Adam:
        return self._adam

    def refresh(self) -> None:
        """After the weights were written to by others than `step`."""
        self._arranged.refresh()

    def parameters(self) -> Parameters:
        """The weights as they are, rounded to float32; a copy."""
        return self._weights.parameters()

    def arrays(self) -> dict[str, Reals]:
        """The weights as they are, in the dtype of training, by their names in model.Parameters; a copy."""
        return {name: array.copy() for name, array in self._weights.arrays().items()}

    def step(self, x: Reals, y: Reals, counted: NDArray[np.bool_] | None = None, state: State | None = None) -> Outcome:
        """One step of Adam down the mean loss over the counted targets.

        x         [B, T, I]
        y         [B, T, O]: the target of each output after each step
        counted   bool [B, T, O]: which targets there are; None for all. y isn't looked at elsewhere
        state     where the sequences begin; None: zero. No gradient flows into it (truncated BPTT)

        Raises InvariantError for other shapes, and when nothing is counted. With a loss or gradient that isn't finite
        the weights aren't either afterwards: the outcome tells.
        """
        batch = self._batch(x, y, counted, state, self._dropout, with_inputs=False)
        results = self._run(batch)
        norm = self._adam.step(self._total)
        self._arranged.refresh()
        return Outcome(_loss_of(results, batch), norm, _joined(results.states))

    def gradients(
        self, x: Reals, y: Reals, counted: NDArray[np.bool_] | None = None, state: State | None = None
    ) -> Gradients:
        """What the next `step` of the same arguments would compute, and the derivatives by x and `state`; no step."""
        batch = self._batch(x, y, counted, state, self._dropout, with_inputs=True)
        results = self._run(batch)
        by_name = {name: array.copy() for name, array in Weights(self._sizes, self._total).arrays().items()}
        return Gradients(
            _loss_of(results, batch), by_name, np.concatenate(results.d_x), _joined(results.d_states),
            _joined(results.states),
        )  # fmt: skip

    def forward(self, x: Reals, state: State | None = None) -> tuple[Reals, State]:
        """(y_hat [B, T, O], the state afterwards) without dropout."""
        x, state = self._checked(x, state)
        shards = self._shards(len(x))
        y_hat = np.empty((*x.shape[:2], self._sizes.outputs), self._dtype)
        states = [state] * len(shards)

        def run(worker: int, shard: int) -> None:
            part = shards[shard]
            tape = self._tape(worker, x.shape[1], part.stop - part.start)
            tape.forward(self._weights, self._arranged, x[part], state.of_sequences(part), None)
            y_hat[part] = tape.y_hat.transpose(1, 0, 2)
            states[shard] = tape.final_state()

        self._each_shard(len(shards), run)
        return y_hat, _joined(states)

    # ------------------------------------------------------------------------------------------------------- one batch

    def _checked(self, x: Reals, state: State | None) -> tuple[Reals, State]:
        if x.ndim != 3 or x.shape[2] != self._sizes.inputs or 0 in x.shape:
            raise InvariantError(f"Trainer: x: expected [B, T, {self._sizes.inputs}], found {x.shape}")
        if state is None:
            state = zero_state(self._sizes, len(x), self._dtype)
        expected = [(len(x), hidden) for hidden in self._sizes.hidden]
        for name, arrays in (("h", state.h), ("c", state.c)):
            if (found := [array.shape for array in arrays]) != expected:
                raise InvariantError(f"Trainer: state.{name}: expected {expected}, found {found}")
        return np.ascontiguousarray(x, self._dtype), state

    def _batch(
        self,
        x: Reals,
        y: Reals,
        counted: NDArray[np.bool_] | None,
        state: State | None,
        dropout: float,
        with_inputs: bool,
    ) -> _Batch:
        x, state = self._checked(x, state)
        shape = (*x.shape[:2], self._sizes.outputs)
        if counted is None:
            counted = np.ones(shape, np.bool_)
        if y.shape != shape or counted.shape != shape:
            raise InvariantError(f"Trainer: y, counted: expected {shape}, found {y.shape}, {counted.shape}")
        count = np.count_nonzero(counted)
        if count == 0:
            raise InvariantError("Trainer: counted: expected a target at least, found none")
        y, counted = np.ascontiguousarray(y, self._dtype), np.ascontiguousarray(counted, np.bool_)
        return _Batch(x, y, counted, state, 1.0 / count, dropout if len(self._sizes.hidden) > 1 else 0.0, with_inputs)

    def _run(self, batch: _Batch) -> _Results:
        """Forward, loss and backward of all shards; the sum of their gradients goes to `_total`."""
        shards = self._shards(len(batch.x))
        if len(self._gradients) < len(shards):
            self._vectors = np.zeros((len(shards), self._sizes.total), self._dtype)
            self._gradients = [Weights(self._sizes, vector) for vector in self._vectors]
        nothing: list[Any] = [None] * len(shards)
        results = _Results(np.zeros(len(shards)), list(nothing), list(nothing), list(nothing))

        def run(worker: int, shard: int) -> None:
            self._run_shard(worker, shard, shards[shard], batch, results)

        self._each_shard(len(shards), run)
        sum_shards(self._vectors[: len(shards)], self._total)
        return results

    def _run_shard(self, worker: int, shard: int, part: slice, batch: _Batch, results: _Results) -> None:
        sequences, steps = part.stop - part.start, batch.x.shape[1]
        tape = self._tape(worker, steps, sequences)
        masks = None
        if batch.dropout > 0.0:
            masks = tape.masks
            for layer, mask in enumerate(masks):
                draw_mask(self._seed, self.steps, layer, len(batch.x), part.start, batch.dropout, mask)
        tape.forward(self._weights, self._arranged, batch.x[part], batch.state.of_sequences(part), masks)
        results.losses[shard] = loss_and_slope(
            self._kind, self._loss_parameters, tape.y_hat, batch.y[part], batch.counted[part], batch.scale, tape.d_y_hat
        )
        results.states[shard] = tape.final_state()
        own = self._gradients[shard]
        own.vector[:] = 0.0
        tape.backward(self._weights, self._arranged, own, masks, batch.with_inputs)
        if batch.with_inputs:
            results.d_x[shard], results.d_states[shard] = tape.d_x(), tape.d_state()

    # ------------------------------------------------------------------------------------------------------ the shards

    def _shards(self, sequences: int) -> list[slice]:
        """Sequences of each shard: all of one size, a multiple of _SHARD_STEP, but for the last."""
        size = max(_SMALLEST_SHARD, ceil(sequences / self._most_shards / _SHARD_STEP) * _SHARD_STEP)
        return [slice(first, min(first + size, sequences)) for first in range(0, sequences, size)]

    def _each_shard(self, shards: int, run: Callable[[int, int], None]) -> None:
        """run(worker, shard) for every shard; a worker, with its tapes, takes every so many-th."""
        workers = min(self._workers, shards)

        def work(worker: int) -> None:
            for shard in range(worker, shards, workers):
                run(worker, shard)

        rest = [self._executor.submit(work, worker) for worker in range(1, workers)] if self._executor else []
        try:
            work(0)
        finally:
            wait(rest)  # nobody writes to the tapes once this has raised
        for future in rest:
            future.result()

    def _tape(self, worker: int, steps: int, sequences: int) -> Tape:
        tapes = self._tapes[worker]
        if (steps, sequences) not in tapes:
            if len(tapes) == _TAPES_KEPT:
                tapes.clear()
            tapes[steps, sequences] = Tape(self._sizes, steps, sequences, self._dtype)
        return tapes[steps, sequences]


def _loss_of(results: _Results, batch: _Batch) -> float:
    total = 0.0
    for own in results.losses:
        total += float(own)
    return total * batch.scale


def _joined(states: list[State]) -> State:
    """The states of the shards as that of the batch."""
    h, c = (zip(*(getattr(state, name) for state in states), strict=True) for name in ("h", "c"))
    return State(tuple(map(np.concatenate, h)), tuple(map(np.concatenate, c)))
