"""What accuracy.py compares with, where the libraries are installed: the plain LSTM by torch, and AutoETS.

Each takes the series and gives, for each, [T, steps]: row t holds the forecasts of y[t + 1] and on by somebody who has
seen y up to t; NaN where nothing was forecast.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from accuracy_sets import Series
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HIDDEN, BATCH, CROP, STEPS_OF_TRAINING, UNSCORED = 50, 64, 96, 2000, 8


def lstm(series: list[Series], steps: int, seed: int = 0) -> list[Floats]:
    """One global nn.LSTM of 50 units, standardised values in, the next value out; Adam 1e-3, MSE, random crops from a
    zero state, gradients clipped at 1. In the test its state is carried, and its own forecasts are fed back for
    further steps.
    """
    import torch  # noqa: PLC0415, not of any extra
    from torch import nn  # noqa: PLC0415

    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    scaled = [_standardised(own) for own in series]
    net, head = nn.LSTM(1, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 1)
    weights = [*net.parameters(), *head.parameters()]
    adam = torch.optim.Adam(weights, lr=1e-3)
    share = np.array([own.train for own in series], np.float64)
    share /= share.sum()
    for _ in range(STEPS_OF_TRAINING):
        crops = np.empty((BATCH, CROP + 1, 1), np.float32)
        for row, k in enumerate(random.choice(len(series), BATCH, p=share)):
            first = random.integers(0, series[k].train - CROP)
            crops[row, :, 0] = scaled[k][0][first : first + CROP + 1]
        x = torch.from_numpy(crops)
        loss = ((head(net(x[:, :-1])[0]) - x[:, 1:])[:, UNSCORED:] ** 2).mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        adam.step()
    with torch.no_grad():
        return [_followed(torch, net, head, own, *scaled[k], steps) for k, own in enumerate(series)]


def _standardised(own: Series) -> tuple[NDArray[np.float32], float, float]:
    known = own.y[: own.train]
    mean, deviation = float(known.mean()), float(known.std())
    deviation = deviation if deviation > 1e-9 else max(1.0, abs(mean))
    return ((own.y - mean) / deviation).astype(np.float32), mean, deviation


def _followed(
    torch: Any, net: Any, head: Any, own: Series, z: NDArray[np.float32], mean: float, deviation: float, steps: int
) -> Floats:
    """Further steps from the origins alone that are scored: every `steps` from the end of the training part."""
    forecast = np.full((len(z), steps), np.nan)
    state, begin = None, 0
    for end in [*range(own.train, len(z), steps), len(z)]:
        out, state = net(torch.from_numpy(z[None, begin:end, None].copy()), state)
        y = head(out)
        forecast[begin:end, 0] = y[0, :, 0].numpy()
        fed, own_state = y[:, -1:], state
        for k in range(1, steps):
            out, own_state = net(fed, own_state)
            fed = head(out)
            forecast[end - 1, k] = float(fed)
        begin = end
    return forecast * deviation + mean


def ets(series: list[Series], steps: int) -> list[Floats]:
    """statsforecast's AutoETS, its form and parameters from the training part, its states carried on by `forward`."""
    from statsforecast.models import AutoETS  # noqa: PLC0415, not of any extra

    found = []
    for own in series:
        period = own.period if own.period <= 24 else 1  # the library refuses longer seasons
        model = AutoETS(season_length=period).fit(own.y[: own.train])
        forecast = np.full((len(own.y), steps), np.nan)
        fitted = model.forward(y=own.y, h=1, fitted=True)["fitted"]
        forecast[:-1, 0] = fitted[1:]
        for origin in range(own.train, len(own.y) - steps + 1, steps):
            forecast[origin - 1] = model.forward(y=own.y[:origin], h=steps)["mean"]
        found.append(forecast)
    return found


RIVALS: dict[str, Callable[[list[Series], int], list[Floats]]] = {"lstm": lstm, "ets": ets}
