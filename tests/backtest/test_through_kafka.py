"""A backtest writes the forecasts of the daemon: intervals, guard, scores, and the daemon killed on the way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from streamlstm.cli.main import outcome
from tests.backtest.events import HOUR_MS, events_of
from tests.backtest.made import made_series, odd_events, unlike_a_file
from tests.backtest.through_kafka import compare, compare_with_files, compare_with_topic, serve
from tests.trust.models import write_model

Settings = dict[str, object]
PLAIN: Settings = {}
ODD: Settings = {
    "events.missing": "hold", "events.gap_ms": 2 * HOUR_MS, "events.after_gap": "reset",
    "events.out_of_order": "dead_letter", "engine.threads": 2, "output.compression": "zstd", "commit.interval_ms": 1,
}  # fmt: skip
TRAINED: dict[str, tuple[Callable[[Path], Path], list[str], Settings]] = {
    "plain": (made_series, ["--horizon", "3", "--steps", "200"], PLAIN),
    "odd": (odd_events, ["--horizon", "24", "--steps", "20", "--inputs", "load,temp"], ODD),
}


@pytest.mark.kafka
@pytest.mark.parametrize("name", TRAINED)
def test_a_backtest_is_production(name: str, kafka: str, tmp_path: Path) -> None:
    made, options, settings = TRAINED[name]
    source, model = str(made(tmp_path / "past.csv")), tmp_path / "model.safetensors"
    assert outcome(["train", source, "-o", str(model), *options]) == 0
    inputs = tuple(options[-1].split(",")) if "--inputs" in options else ("value",)
    events, topic = events_of([source], inputs), f"history-{tmp_path.name}"
    served = serve(kafka, model, topic, events, settings, tmp_path)
    assert served.committed[0] < len(events) // 2  # it was killed before it was done with what it was given
    of_files = compare_with_files(served, model, [source], settings)
    of_topic = compare_with_topic(served, kafka, topic, model, settings)
    assert (of_files.examples, of_topic.examples) == ([], [])
    assert of_files.same == of_topic.same == len(events) - served.letters
    assert served.letters > 0 or name == "plain"


@pytest.mark.kafka
def test_of_a_topic_in_any_order(kafka: str, tmp_path: Path) -> None:
    """Where it matters what stands before what: tests/service/test_replay.py has each rule by itself."""
    settings: Settings = {
        "state.ttl_ms": 40 * HOUR_MS, "state.on_full": "evict", "state.max_streams_per_partition": 6,
        "state.max_streams": 18,
    }  # fmt: skip
    events, topic = list(unlike_a_file()), f"order-{tmp_path.name}"
    model = write_model(tmp_path / "model.safetensors", "judged")
    served = serve(kafka, model, topic, events, settings, tmp_path)
    found = compare_with_topic(served, kafka, topic, model, settings)
    assert found.examples == []
    assert found.same == len(events) - served.letters


class TestComparison:
    """The judge is held to files that differ."""

    LINES = tuple(b'{"stream":"%s","ts":1,"y":%d,"src":{"offset":%d}}\n' % (b"ab"[n % 2 :][:1], n, n) for n in range(6))

    def compared(self, tmp_path: Path, found: list[bytes], *, with_source: bool) -> tuple[int, int]:
        (tmp_path / "found").write_bytes(b"".join(found))
        (tmp_path / "expected").write_bytes(b"".join(self.LINES))
        result = compare(tmp_path / "found", tmp_path / "expected", with_source=with_source)
        return result.same, result.differing

    @pytest.mark.parametrize("with_source", [False, True])
    def test_what_differs(self, tmp_path: Path, with_source: bool) -> None:
        lines = list(self.LINES)
        changed = [lines[0].replace(b'"y":0', b'"y":7'), *lines[1:]]
        apart = lines[0::2] + lines[1::2]
        assert self.compared(tmp_path, lines, with_source=with_source) == (6, 0)
        assert self.compared(tmp_path, apart, with_source=with_source) == (6, 0)
        assert self.compared(tmp_path, changed, with_source=with_source) == (5, 1)
        assert self.compared(tmp_path, lines[:4], with_source=with_source) == (4, 2)
        assert self.compared(tmp_path, [], with_source=with_source) == (0, 1)

    def test_order_and_doubles(self, tmp_path: Path) -> None:
        lines = list(self.LINES)
        assert self.compared(tmp_path, [lines[2], lines[1], lines[0], *lines[3:]], with_source=False) == (4, 2)
        assert self.compared(tmp_path, [*lines, lines[5]], with_source=False) == (6, 1)
        assert self.compared(tmp_path, [*lines, lines[5]], with_source=True) == (6, 1)
