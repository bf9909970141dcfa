"""Verdicts: health means progress."""

import pytest

from streamlstm.service.health import (
    COMMIT_LIMIT_SECONDS,
    START_LIMIT_SECONDS,
    Phase,
    Progress,
    Verdict,
    liveness,
    readiness,
)

LIMIT = 60.0
NOW = 1000.0


def progress(phase: Phase = Phase.RUNNING, **facts: float | None) -> Progress:
    at_ease: dict[str, float | None] = {"last_turn": NOW, "connected_since": 0.0, "waiting_since": None}
    return Progress(phase_since=NOW - 5, phase=phase, partitions=4, **(at_ease | facts))  # type: ignore[arg-type]


def failing(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if not check.ok}


@pytest.mark.parametrize(
    ("facts", "not_live", "not_ready"),
    [
        (progress(), set(), set()),
        (progress(last_turn=NOW - LIMIT), set(), set()),
        (progress(last_turn=NOW - LIMIT - 1), {"loop"}, {"loop"}),
        (progress(waiting_since=NOW - COMMIT_LIMIT_SECONDS), set(), set()),
        (progress(waiting_since=NOW - COMMIT_LIMIT_SECONDS - 1), {"commit"}, {"commit"}),
        (progress(waiting_since=NOW - 999, connected_since=None), set(), {"brokers"}),
        (progress(waiting_since=NOW - 999, connected_since=NOW - 5), set(), set()),
        (progress(waiting_since=NOW - 999, connected_since=NOW - 151), {"commit"}, {"commit"}),
        (progress(connected_since=None), set(), {"brokers"}),
        (progress(stopped={("events", 3): "records are gone"}), set(), {"partitions"}),
        (progress(Phase.JOINING), set(), {"phase"}),
        (progress(Phase.JOINING, last_turn=0.0), {"loop"}, {"loop", "phase"}),
        (progress(Phase.DRAINING), set(), {"phase"}),
        (progress(Phase.STARTING, last_turn=0.0), set(), {"phase"}),
    ],
)
def test_verdicts(facts: Progress, not_live: set[str], not_ready: set[str]) -> None:
    assert failing(liveness(facts, NOW, LIMIT)) == not_live
    assert failing(readiness(facts, NOW, LIMIT)) == not_ready


def test_a_start_that_never_ends_is_not_alive() -> None:
    assert liveness(Progress(0.0), START_LIMIT_SECONDS, LIMIT).ok
    assert failing(liveness(Progress(0.0), START_LIMIT_SECONDS + 1, LIMIT)) == {"start"}


def test_a_replica_without_partitions_is_a_ready_standby() -> None:
    standby = progress()
    standby.partitions = 0
    assert readiness(standby, NOW, LIMIT).ok


def test_entering_a_phase_counts_as_a_turn_and_keeps_its_beginning() -> None:
    facts = Progress(0.0)
    facts.enter(Phase.JOINING, 10.0)
    facts.enter(Phase.JOINING, 20.0)
    assert (facts.phase, facts.phase_since, facts.last_turn) == (Phase.JOINING, 10.0, 20.0)


def test_details_carry_the_figure_that_decided() -> None:
    (loop, _) = liveness(progress(last_turn=NOW - 75.25), NOW, LIMIT).checks
    assert loop.detail == "last turn 75.2 s ago of 60"
