"""A training run that was left: the network of each stage, as one safetensors file.

Tensors <stage>.<array> (float32); metadata `streamlstm_training`, a JSON object: `fingerprint`, which names the history
and every option that decides the outcome; `elapsed`, seconds of training so far; the numbers of each stage. What came
before the network is found again from the history, in the same order and with the same draws.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from streamlstm.errors import ModelFileError
from streamlstm.model.safetensors_file import read_safetensors
from streamlstm.model.strict_json import parse_object
from streamlstm.model.tensors import Tensor
from streamlstm.training.fit import Fit

METADATA_KEY = "streamlstm_training"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`where`: the file. stages: the numbers of each."""

    where: str
    fingerprint: str
    elapsed: float
    stages: dict[str, dict[str, Any]]
    tensors: dict[str, Tensor]

    def restore(self, stage: str, fit: Fit) -> None:
        """Put `fit` where the stage was left, if it had begun. Raises ModelFileError where it doesn't fit."""
        if stage not in self.stages:
            return
        prefix = f"{stage}."
        arrays = {name.removeprefix(prefix): own for name, own in self.tensors.items() if name.startswith(prefix)}
        try:
            fit.restore({name: own.read() for name, own in arrays.items()}, self.stages[stage])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{self.where}: {stage}", "damaged", expected="a stage of this training", found=str(error)
            ) from error


def packed(fingerprint: str, elapsed: float, fits: dict[str, Fit]) -> bytes:
    """The content of the file."""
    tensors: dict[str, Any] = {}
    stages: dict[str, Any] = {}
    for stage, fit in fits.items():
        arrays, stages[stage] = fit.state()
        tensors |= {f"{stage}.{name}": array for name, array in arrays.items()}
    tensors = tensors or {"nothing": np.zeros(1, np.float32)}
    document = {"fingerprint": fingerprint, "elapsed": elapsed, "stages": stages}
    return safetensors.numpy.save(tensors, metadata={METADATA_KEY: json.dumps(document)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises ModelFileError when it isn't one."""
    where = str(path)
    tensors, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata:
        found = ", ".join(sorted(metadata))[:120] or "no metadata"
        raise ModelFileError(
            f"{where}: __metadata__", "not a checkpoint of train", expected=f"the key {METADATA_KEY}", found=found
        )
    document = parse_object(metadata[METADATA_KEY].encode(), where)
    fingerprint, elapsed, stages = (document.get(name) for name in ("fingerprint", "elapsed", "stages"))
    if not (isinstance(fingerprint, str) and isinstance(elapsed, int | float) and isinstance(stages, dict)):
        raise ModelFileError(where, "damaged", expected="fingerprint, elapsed and stages", found=", ".join(document))
    return Checkpoint(where, fingerprint, float(elapsed), stages, tensors)
