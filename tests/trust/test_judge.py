"""The judge judged: doctored answers are found, honest ones are not complained of. Without a broker."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.daemon_process import write_model
from tests.trust.judge import Verdict, _entered, compare, uninterrupted, write_lines
from tests.trust.ledger import FORECAST, LETTER, Ledger
from tests.trust.reader import PREFIX, Record, offset_in_forecast
from tests.trust.traffic import event

EVENTS = 400
Answers = list[Record]


@pytest.fixture(scope="module")
def events() -> list[Record]:
    chance = random.Random(1)
    times = [1_730_000_000_000 + 10 * i for i in range(EVENTS)]
    return [
        Record(i, time, b"stream-%d" % (i % 9), event(chance, b"stream-%d" % (i % 9), time), (("number", b"%d" % i),))
        for i, time in enumerate(times)
    ]


@pytest.fixture(scope="module")
def truth(events: list[Record], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], list[tuple[int, str]]]:
    folder = tmp_path_factory.mktemp("truth")
    write_lines(iter(events), folder / "input-3.jsonl")
    model = write_model(folder / "model.safetensors")
    values, refused = uninterrupted(folder / "input-3.jsonl", model, "events", 3, {})
    return list(values), list(refused)


def honest(events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]) -> tuple[Answers, Answers]:
    """The forecasts and dead letters that a right daemon writes."""
    values, refused = truth
    forecasts = []
    for i, value in enumerate(values):
        asked = events[offset_in_forecast(value)]
        time = int(value[value.index(b'"ts":') + 5 :].split(b",")[0])
        forecasts.append(Record(2 * i, min(time, asked.timestamp), asked.key, value, asked.headers))
    letters = []
    for i, (offset, reason) in enumerate(refused):
        texts = ["events", "3", str(offset), reason, f"about {reason}", "decode", "1"]
        names = ["topic", "partition", "offset", "reason", "message", "stage", "version"]
        headers = tuple((PREFIX + name, text.encode()) for name, text in zip(names, texts, strict=True))
        letters.append(replace(events[offset], offset=3 * i, headers=events[offset].headers + headers))
    return forecasts, letters


def verdict_on(
    events: list[Record], forecasts: Answers, letters: Answers, truth: tuple[list[bytes], object]
) -> Verdict:
    values, refused = truth
    verdict, ledger = Verdict(), Ledger()
    rest: list[Iterator[tuple[int, Record]]] = [
        _entered(forecasts, ledger, 3, FORECAST),
        _entered(letters, ledger, 3, LETTER),
    ]
    compare("events-3", events, *rest, iter(values), iter(refused), verdict)  # type: ignore[call-overload]
    for _ in (*rest[0], *rest[1]):
        pass
    verdict.lost = ledger.lost({3: len(events)})
    verdict.duplicated, verdict.reordered = ledger.duplicated, ledger.reordered
    assert ledger.complete({3: len(events)}) == (verdict.lost == 0)
    return verdict


def test_an_honest_run_is_clean(events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]) -> None:
    forecasts, letters = honest(events, truth)
    assert len(letters) > 3
    verdict = verdict_on(events, forecasts, letters, truth)
    assert verdict.clean, verdict


def lose(answers: Answers) -> None:
    del answers[2]


def lose_the_last(answers: Answers) -> None:
    del answers[-1]


def double(answers: Answers) -> None:
    answers.insert(3, answers[2])


def double_later(answers: Answers) -> None:
    answers.append(answers[1])


def exchange(answers: Answers) -> None:
    answers[1], answers[2] = answers[2], answers[1]


def changed(**parts: Callable[[Record], object]) -> Callable[[Answers], None]:
    def doctor(answers: Answers) -> None:
        answers[2] = replace(answers[2], **{name: make(answers[2]) for name, make in parts.items()})  # type: ignore[arg-type]

    return doctor


DOCTORED: dict[str, tuple[Callable[[Answers], None], tuple[int, int, int, int]]] = {
    "lost": (lose, (1, 0, 0, 0)),
    "the last one lost": (lose_the_last, (1, 0, 0, 0)),
    "doubled": (double, (0, 1, 0, 0)),
    "doubled later": (double_later, (0, 1, 0, 0)),
    "another key": (changed(key=lambda _: b"stream-x"), (0, 0, 0, 1)),
    "no key": (changed(key=lambda _: None), (0, 0, 0, 1)),
    "another time": (changed(timestamp=lambda record: record.timestamp + 1), (0, 0, 0, 1)),
    "a header more": (changed(headers=lambda record: (*record.headers, ("x", b""))), (0, 0, 0, 1)),
    "no headers of the event": (changed(headers=lambda record: record.headers[1:]), (0, 0, 0, 1)),
}


@pytest.mark.parametrize("topic", ["forecasts", "letters"])
@pytest.mark.parametrize("name", DOCTORED)
def test_doctored_answers(
    name: str, topic: str, events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]
) -> None:
    forecasts, letters = honest(events, truth)
    doctor, (lost, duplicated, reordered, differing) = DOCTORED[name]
    doctor(forecasts if topic == "forecasts" else letters)
    verdict = verdict_on(events, forecasts, letters, truth)
    assert not verdict.clean
    assert verdict.examples or verdict.lost or verdict.duplicated
    found = (verdict.lost, verdict.duplicated, verdict.reordered, verdict.differing)
    assert found == (lost, duplicated, reordered, differing)


def test_two_forecasts_exchanged(events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]) -> None:
    forecasts, letters = honest(events, truth)
    exchange(forecasts)
    verdict = verdict_on(events, forecasts, letters, truth)
    assert (verdict.lost, verdict.duplicated, verdict.reordered) == (0, 0, 1)


@pytest.mark.parametrize("at", [9, 40, -60, -1])
def test_one_byte_changed(at: int, events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]) -> None:
    forecasts, letters = honest(events, truth)
    value = bytearray(forecasts[5].value or b"")
    digits = [i for i, byte in enumerate(value) if chr(byte) in "0123456789" and i < value.rindex(b'"src"')]
    value[digits[at % len(digits)]] ^= 1
    forecasts[5] = replace(forecasts[5], value=bytes(value))
    verdict = verdict_on(events, forecasts, letters, truth)
    assert (verdict.lost, verdict.duplicated, verdict.reordered, verdict.differing) == (0, 0, 0, 1)


def test_a_refusal_answered_by_a_forecast(
    events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]
) -> None:
    """The account balances, but the uninterrupted run has refused this one."""
    forecasts, letters = honest(events, truth)
    letter = letters.pop(0)
    offset = truth[1][0][0]
    value = (forecasts[0].value or b"").replace(b'"offset":0', b'"offset":%d' % offset)
    at = sum(offset_in_forecast(each.value) < offset for each in forecasts)
    forecasts.insert(at, replace(letter, value=value))
    verdict = verdict_on(events, forecasts, letters, truth)
    assert not verdict.lost
    assert verdict.differing == 1


def test_a_forecast_refused(events: list[Record], truth: tuple[list[bytes], list[tuple[int, str]]]) -> None:
    forecasts, letters = honest(events, truth)
    forecast = forecasts.pop(0)
    name, text = PREFIX + "offset", str(offset_in_forecast(forecast.value)).encode()
    headers = tuple((key, text if key == name else found) for key, found in letters[0].headers)
    letters.insert(0, replace(letters[0], headers=headers))
    verdict = verdict_on(events, forecasts, letters, truth)
    assert not verdict.lost
    assert verdict.differing == 1


def test_the_ledger_forgets_what_is_in_order() -> None:
    ledger = Ledger()
    for offset in range(10_000):
        ledger.enter(0, offset, FORECAST)
    assert not ledger._pages[0].beyond
    ledger.enter(0, 10_001, FORECAST)
    ledger.enter(0, 10_000, LETTER)  # the other topic may be ahead
    assert (ledger.duplicated, ledger.reordered, ledger.lost({0: 10_002})) == (0, 0, 0)
    assert ledger.lost({0: 10_005, 1: 7}) == 10
