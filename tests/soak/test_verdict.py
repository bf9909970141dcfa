"""What `make soak` makes of its samples."""

import numpy as np
import pytest

from tests.daemon_process import Footprint
from tests.soak.run import ROUND, Sample, least_of_rounds, slope

MB = 1_000_000


def samples(mb_per_hour: float, minutes: float = 30.0) -> list[Sample]:
    """A backlog of a minute or two in each round."""
    found = []
    for at in np.arange(0, 60 * minutes, 2).tolist():
        backlog = 60 if at // 60 % ROUND < 2 else 0
        found.append((at, Footprint(int((340 + backlog + at / 3600 * mb_per_hour) * MB), 9, 13)))
    return found


@pytest.mark.parametrize("grows", [0.0, 0.5, 20.0, -3.0])
def test_backlogs_hide_no_growth_and_make_none(grows: float) -> None:
    assert slope(least_of_rounds(samples(grows))) == pytest.approx(grows, abs=0.01)


def test_a_round_that_has_just_begun_does_not_count() -> None:
    assert len(least_of_rounds(samples(0.0, 30.5))) == 6
