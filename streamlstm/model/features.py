"""What a trained model sees of a stream: lagged values relative to the newest, over a running scale; and what of them
goes straight to the forecast.

With x_t the newest value of the target and s_t the running mean of |x_t - x_{t-1}|, weight 1/min(n, scale_window):

    d_j      = x_{t - lags[j]} - x_t                       0 where the stream is younger than the lag
    u_j      = d_j / s_t, cut off (kernels.features)      the network's inputs: those j in `fed`, then the other inputs
    y_hat_k  = x_t + sum over j of skip[k, j] d_j + s_t y_k          y: what the network says

The skip connection is that of LSTNet (Lai et al. 2018): a linear forecast that the LSTM corrects. Nothing here knows
the level or the scale of a stream, so a stream never seen in training is forecast like the others.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streamlstm.errors import InvariantError
from streamlstm.model.parameters import Float32

MAX_LAGS = 512
MAX_LAG = 100_000
MAX_SCALE_WINDOW = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Features:
    """lags: in events, increasing. fed: indices of the lags that the network sees, increasing. scale_window: events
    that the scale looks back on. period: of the seasonal naive forecast in the guard, in events; 0: none. skip:
    float32 (O, L); kept C-contiguous and read-only.
    """

    lags: tuple[int, ...]
    fed: tuple[int, ...]
    scale_window: int
    period: int
    skip: Float32

    def __post_init__(self) -> None:
        skip = self.skip
        if skip.dtype != np.float32 or skip.ndim != 2 or skip.shape[1] != len(self.lags) or 0 in skip.shape:
            expected = f"float32 (outputs, {len(self.lags)}) without empty axis"
            raise InvariantError(f"skip: expected {expected}, found {skip.dtype} {skip.shape}")
        frozen = np.ascontiguousarray(skip).view()
        frozen.flags.writeable = False
        object.__setattr__(self, "skip", frozen)


def increasing(numbers: tuple[int, ...], low: int, high: int) -> bool:
    """Whether all are in [low, high], each above the one before."""
    return all(low <= number <= high for number in numbers) and all(a < b for a, b in pairwise(numbers))
