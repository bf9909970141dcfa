"""From a history to a model by the automatic recipe: what is read, trained, kept on the way, and put into the file."""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamlstm import __version__
from streamlstm.errors import BadDataError
from streamlstm.history.history import History
from streamlstm.kernels.features import LIMIT
from streamlstm.model.features import Features
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind
from streamlstm.service.learned_from import HISTORY, LEARNED_TO, history_hash
from streamlstm.training.auto import ALL, TAIL, Advance, AutoSettings, Event, Learned, learn_auto
from streamlstm.training.checkpoint import Checkpoint, packed, read_checkpoint
from streamlstm.training.fit import Fit, Lent
from streamlstm.training.past import SCALE_WINDOW, past_of
from streamlstm.training.tail import Scores

Clock = Callable[[], float]

_SHARE_OF_TAIL = 0.55  # of the time limit: the rest is for training once more, on everything


@dataclass(frozen=True, slots=True)
class AutoOptions:
    """`tail`: the share of each stream, its end, that is kept from training. `level`: of the intervals, 0: none.
    `time_limit`: seconds of training. `checkpoint`: where the state of training is kept, every `save_every` seconds.
    """

    settings: AutoSettings
    tail: float = 0.2
    level: float = 0.9
    guard: bool = True
    threads: int = 1
    time_limit: float | None = None
    checkpoint: Path | None = None
    save_every: float = 30.0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Training was asked to stop by this signal, and has kept its state."""

    signal: int
    steps: int


class StopSignals:
    """As a context manager takes over SIGINT and SIGTERM: the first is remembered in `received`, the second ends the
    process as it always does.
    """

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)  # type: ignore[arg-type]

    def _handle(self, number: int, _: object) -> None:
        self.received = number
        self.__exit__()


def learn_automatically(
    history: History, options: AutoOptions, clock: Clock, stop: Callable[[], int], tell: Callable[[Event], None]
) -> tuple[Model, Learned] | Interrupted:
    """Train one model for all streams; `tell` hears of every choice and step. clock: seconds, from anywhere; `stop`:
    the signal that asks for an end, else 0.

    Raises BadDataError when there is nothing to learn from or the loss explodes, ModelFileError when the checkpoint is
    of another history, other options or damaged.
    """
    _check_range(history)
    scaling, others = _standardised(history, options.tail)
    past = past_of(history.x[:, 0], others, history.start)
    with ThreadPoolExecutor(max(1, options.threads - 1), "train") as executor:
        lent = Lent(executor if options.threads > 1 else None, options.threads)
        run = _Run(options, _fingerprint(history, options), clock)
        events = learn_auto(
            past, history.tail_after(1 - options.tail), options.settings, lent, run.begin, run.has_time
        )  # fmt: skip
        for event in events:
            tell(event)
            if isinstance(event, Learned):
                return _model(history, event, scaling, options), event
            run.save_if_due(isinstance(event, Advance))
            if number := stop():
                run.save()
                return Interrupted(number, run.steps)
    raise AssertionError("training ends with what was learned")


class _Run:
    """One process's part of a training: time, and what is kept on disk."""

    def __init__(self, options: AutoOptions, fingerprint: str, clock: Clock) -> None:
        self._options, self._fingerprint, self._clock = options, fingerprint, clock
        self._fits: dict[str, Fit] = {}
        self._before = _left(options.checkpoint, fingerprint)
        self._begun = clock() - (self._before.elapsed if self._before else 0.0)
        self._saved_at = clock()

    @property
    def steps(self) -> int:
        return sum(fit.steps for fit in self._fits.values())

    def begin(self, stage: str, fit: Fit) -> None:
        self._fits[stage] = fit
        if self._before:
            self._before.restore(stage, fit)

    def has_time(self, stage: str) -> bool:
        limit = self._options.time_limit
        return limit is None or self._clock() - self._begun < limit * (_SHARE_OF_TAIL if stage == TAIL else 1.0)

    def save_if_due(self, training: bool) -> None:
        if training and self._clock() - self._saved_at >= self._options.save_every:
            self.save()

    def save(self) -> None:
        """Whole or not at all. A stage that has not begun again keeps what the checkpoint said of it."""
        path = self._options.checkpoint
        if path is None or not self._fits:
            return
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            file.write(packed(self._fingerprint, self._clock() - self._begun, self._fits))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        self._saved_at = self._clock()


def _left(path: Path | None, fingerprint: str) -> Checkpoint | None:
    """The checkpoint of the same training, if there is one."""
    if path is None or not path.exists():
        return None
    found = read_checkpoint(path)
    if found.fingerprint != fingerprint:
        raise BadDataError(
            f"{path}: a checkpoint of another history, version or of other options: expected {fingerprint[:12]}, found "
            f"{found.fingerprint[:12]}; remove it, or name another --checkpoint"
        )
    return found


def _fingerprint(history: History, options: AutoOptions) -> str:
    named = json.dumps([__version__, history_hash(history), options.tail, asdict(options.settings)], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()


def _check_range(history: History) -> None:
    largest = float(np.abs(history.x).max(initial=0.0))
    if largest > LIMIT:
        raise BadDataError(f"history: expected values within {LIMIT:g}, found {largest:.6g}")


def _standardised(history: History, tail: float) -> tuple[Scaling, NDArray[np.float32]]:
    """The inputs besides the first, by their mean and deviation in front of the tails: float32 [N, F - 1]."""
    inputs = len(history.inputs)
    if inputs == 1:
        return Scaling(ScalingKind.NONE, (0.0,), (1.0,)), np.empty((history.rows, 0), np.float32)
    is_known = np.arange(history.rows) < np.repeat(history.tail_after(1 - tail), np.diff(history.start))
    known = history.x[is_known if is_known.any() else slice(None), 1:]
    offset, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(offset) + 1e-290, scale, 1.0)
    others = ((history.x[:, 1:] - offset) / scale).astype(np.float32)
    return Scaling(ScalingKind.STANDARD, (0.0, *offset.tolist()), (1.0, *scale.tolist())), others


def _model(history: History, learned: Learned, scaling: Scaling, options: AutoOptions) -> Model:
    parameters = learned.weights.parameters()
    lags, skip = learned.base.lags, learned.base.skip.astype(np.float32)
    return Model(
        parameters=parameters,
        window=0,
        inputs=history.inputs,
        target=0,
        predicts="change",
        horizons=learned.base.horizons,
        scaling=scaling,
        interval_ms=None,
        origin=_origin(history, learned, options),
        golden=make_golden(parameters, 0, "the trained model"),
        features=Features(lags.lags, lags.fed, SCALE_WINDOW, learned.periods.short, skip),
        level=options.level,
        guard=options.guard,
    )


def _origin(history: History, learned: Learned, options: AutoOptions) -> dict[str, str]:
    """Everything that makes the same model again, and what it was worth."""
    settings = asdict(options.settings.fit)
    steps = {stage: learned.fits[stage].steps for stage in (TAIL, ALL) if stage in learned.fits}
    told = {
        "trained_by": f"streamlstm {__version__}",
        "recipe": "auto",
        "seed": str(options.settings.seed),
        HISTORY: history_hash(history),
        LEARNED_TO: str(int(history.time.max())),  # the tails too, once they have chosen
        "tail": f"{options.tail:g}",
        "fit": json.dumps(settings),
        "lags": learned.base.lags.name,
        "steps": ", ".join(f"{stage} {count}" for stage, count in steps.items()) or "none",
        "network": "used" if learned.network_gains else "adds nothing",
    }
    if options.time_limit is not None:
        told["time_limit"] = f"{options.time_limit:g}"
    if learned.scores.streams:
        told["tail_rel_mae"] = _by_horizon(learned.scored, learned.scores)
    return told


def _by_horizon(scored: tuple[int, ...], scores: Scores) -> str:
    ratios = zip(scored, scores.model.tolist(), strict=True)
    return ", ".join(f"{horizon}: {value:.4f}" for horizon, value in ratios if isfinite(value))


@contextmanager
def signals_as_requests(wanted: bool) -> Iterator[Callable[[], int]]:
    """What to ask for the signal received: where nothing could be kept, signals end the process as ever."""
    if not wanted:
        yield lambda: 0
        return
    with StopSignals() as signals:
        yield lambda: signals.received
