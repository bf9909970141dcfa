"""The fast part of the trust suite: each fault once, under load, and the verdict over all that was written."""

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.daemon_process import write_model
from tests.transport.fault_proxy import Harm
from tests.trust.faults import (
    AT_END,
    AT_START,
    IN_REBALANCE,
    IN_TRANSACTION,
    POINTS,
    REQUESTS,
    Plan,
    broker_kill,
    lives,
    network,
    steady,
    storm,
)
from tests.trust.judge import judge
from tests.trust.stage import Script, Stage


def test_every_point_is_in_one_group() -> None:
    assert sorted(POINTS) == sorted({*IN_TRANSACTION, *IN_REBALANCE, *AT_START, *AT_END})


def kills(stage: Stage, points: list[str]) -> list[Script]:
    """Two members; each is killed at every other point, and guests move the partitions meanwhile."""
    chance = random.Random(4)
    plans = [Plan("kill", point, chance.randint(1, 3) if point in IN_TRANSACTION else 1, 0.3) for point in points]
    done: list[str] = []

    def of(name: str, own: list[Plan]) -> Script:
        yield from lives(stage, stage.member(name), own)
        done.append(name)

    return [
        of("one", plans[::2]),
        of("two", plans[1::2]),
        storm(stage, ["guest", "other guest"], 1.0, lambda _: len(done) == 2),
    ]


def missing(stage: Stage) -> list[str]:
    found = Counter(fault.point for fault in stage.faults if fault.kind == "kill at a point")
    return [point for point in POINTS if not found[point]]


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_nothing_is_lost(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors")
    with Stage(tmp_path, model, partitions=4, rate=400, streams=200, seed=1) as stage:
        one, two = stage.member("one", static=True, proxied=True), stage.member("two")
        stage.play(kills(stage, [*IN_REBALANCE, *AT_START, *IN_TRANSACTION, *AT_END]))
        for _ in range(2):
            if missing(stage):
                stage.play(kills(stage, missing(stage)))
        cuts = [network(stage, one, api, Harm.CUT_AFTER) for api in REQUESTS]
        zombie = lives(stage, two, [Plan("stop", "offsets_sent", 3)])
        stage.play([zombie, lives(stage, one, [Plan("term", after=0.1), Plan("term", after=15, protocol="v1")]), *cuts])
        stage.play([broker_kill(stage, 1.0), storm(stage, ["guest", "other guest"], 0.5, lambda rounds: rounds == 3)])
        stage.play([steady(stage, one), steady(stage, two)])
        assert stage.drain()
        stage.play([stage.end_members()])
        assert not missing(stage)
        assert {fault.point for fault in stage.faults if fault.kind.startswith("network")} == {a.name for a in REQUESTS}
        assert {"zombie", "broker kill", "join", "leave"} <= {fault.kind for fault in stage.faults}
        verdict = judge(stage.topics, model, tmp_path, {})
    assert verdict.clean, verdict
    assert not stage.complaints
