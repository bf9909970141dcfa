"""Compile what the daemon will call into its cache: `python -m deploy.demo.compile_kernels`.

The daemon does the same at its start; the demo has it done beforehand, beside the training and the start of the broker,
for a model of the kind that is being trained.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deploy.demo.daemon import CONFIG
from streamlstm.cli.options import load_config
from streamlstm.model.features import Features
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, no_scaling
from streamlstm.model.parameters import Layer, Parameters
from streamlstm.service.warmup import warm_up


def main() -> None:
    with ThreadPoolExecutor(1) as executor:
        warm_up(load_config(CONFIG, ()), smallest_model(), executor)


def smallest_model() -> Model:
    """One lag, one unit, no weight that isn't zero; intervals and a guard, as a trained model has them."""
    none = np.zeros((4, 1), np.float32)
    parameters = Parameters((Layer(none, none, none[:, 0]),), none[:1], none[:1, 0])
    return Model(
        parameters=parameters,
        window=0,
        inputs=("value",),
        target=0,
        predicts="change",
        horizons=(1,),
        scaling=no_scaling(1),
        interval_ms=None,
        origin={},
        golden=make_golden(parameters),
        features=Features(lags=(1,), fed=(0,), scale_window=2, period=0, skip=none[:1]),
        level=0.9,
        guard=True,
    )


if __name__ == "__main__":
    main()
