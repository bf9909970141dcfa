"""The check of the demo can fail: every kind of fault is found and named."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from demo.made_answers import MadeReplay, made_replay

from deploy.demo.ledger import Ledger
from deploy.demo.reader import lagging
from deploy.demo.wire import Answer, DeadLetter, Forecast


def problems(replay: MadeReplay, answers: Sequence[Answer]) -> str:
    ledger = Ledger(replay.series)
    for answer in answers:
        ledger.book(answer)
    return "\n".join(ledger.problems(replay.ends))


@pytest.fixture
def replay() -> MadeReplay:
    return made_replay()


def test_a_faultless_replay_has_no_problem(replay: MadeReplay) -> None:
    ledger = Ledger(replay.series)
    for answer in replay.answers:
        ledger.book(answer)
    assert ledger.problems(replay.ends) == []
    assert (ledger.forecasts, ledger.dead_letters.total()) == (30, 5)
    assert ledger.answered == len(replay.answers) == sum(replay.ends.values())


def test_a_lost_event(replay: MadeReplay) -> None:
    found = problems(replay, replay.answers[:-1])
    assert "1 events without an answer" in found


def test_an_event_answered_twice(replay: MadeReplay) -> None:
    found = problems(replay, [*replay.answers, replay.answers[3]])
    assert "1 events answered more than once" in found


def test_an_answer_to_nothing(replay: MadeReplay) -> None:
    stray = replace(replay.answers[0], offset=10_000)
    found = problems(replay, [*replay.answers, stray])
    assert "1 answers to events that don't exist, for instance (0, 10000)" in found


def test_answers_in_another_order(replay: MadeReplay) -> None:
    forecasts = [n for n, answer in enumerate(replay.answers) if isinstance(answer, Forecast) and answer.stream == "up"]
    answers = list(replay.answers)
    answers[forecasts[0]], answers[forecasts[1]] = answers[forecasts[1]], answers[forecasts[0]]
    assert "comes after offset" in problems(replay, answers)


@pytest.mark.parametrize("change", [{"y": 99.0}, {"ts": 1}, {"n_seen": 7}, {"stream": "wave"}, {"topic": "elsewhere"}])
def test_a_wrong_forecast(replay: MadeReplay, change: dict[str, object]) -> None:
    at = next(n for n, answer in enumerate(replay.answers) if isinstance(answer, Forecast) and answer.stream == "up")
    answers = list(replay.answers)
    answers[at] = replace(answers[at], **change)
    assert "wrong answers" in problems(replay, answers)


def test_a_dead_letter_with_the_wrong_reason_or_for_a_good_event(replay: MadeReplay) -> None:
    at = next(n for n, answer in enumerate(replay.answers) if isinstance(answer, DeadLetter))
    answers = list(replay.answers)
    answers[at] = replace(answers[at], reason="no_key")
    assert "reason no_key, expected not_json" in problems(replay, answers)
    good = replay.answers[0]
    refused = DeadLetter(b'{"value":1}', good.topic, good.partition, good.offset, "capacity")
    assert "reason capacity, expected a forecast" in problems(replay, [refused, *replay.answers[1:]])


def test_records_that_never_reached_the_topic(replay: MadeReplay) -> None:
    ends = {partition: end - 1 for partition, end in replay.ends.items()}
    ledger = Ledger(replay.series)
    for answer in replay.answers:
        if answer.offset < ends[answer.partition]:
            ledger.book(answer)
    assert "the input topic holds 33 records, 35 were fed" in "\n".join(ledger.problems(ends))


def test_offsets_left_uncommitted() -> None:
    assert lagging({0: 5, 1: 7}, {0: 5, 1: 7}) == []
    assert lagging({0: 5, 1: 7}, {0: 5, 1: 6}) == ["partition 1: committed offset 6, end 7"]
