"""The model, made as its user would: `streamlstm train` on a CSV of what is past, and nothing else to choose."""

import time
from collections.abc import Sequence
from pathlib import Path

from deploy.demo.child import Child
from deploy.demo.series import Series, write_history

STEPS = 500
SEED = 1
PATIENCE_SECONDS = 240.0  # the first time on a slow machine: most of it compiles kernels
TOLD = ("season:", "chosen:", "the network ")


class Training:
    """Runs from the start on, and writes `model`. Steps are counted, not seconds, so that every run makes the same."""

    def __init__(self, series: Sequence[Series], folder: Path, model: Path) -> None:
        self._model = model
        history = folder / "history.csv"
        write_history(series, history)
        self._begin = time.time()
        options = ["--recipe", "auto", "--steps", str(STEPS), "--seed", str(SEED)]
        self._child = Child(
            "streamlstm", "train", str(history), "-o", str(model), *options, log=folder / "training.log"
        )

    def kill(self) -> None:
        self._child.kill()

    def finish(self) -> list[str]:
        """Wait for the model; what the command said that it found and chose. Raises ChildError when there is none."""
        self._child.finish(PATIENCE_SECONDS)
        return [line for line in self._child.log_lines() if line.startswith(TOLD)]

    @property
    def seconds(self) -> float:
        """What a finished training took."""
        return self._model.stat().st_mtime - self._begin
