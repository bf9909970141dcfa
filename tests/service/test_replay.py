"""A topic is forecast in the order of its offsets, as daemons do it, one for each partition: the oracle is engines that
are fed by hand.
"""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from streamlstm.config import load
from streamlstm.engine.forecaster import Forecaster
from streamlstm.events.batch import EventBatch, Reason
from streamlstm.events.decode import JsonDecoder
from streamlstm.events.encode import ForecastEncoder
from streamlstm.events.fields import FieldPaths
from streamlstm.history.collector import Collector
from streamlstm.model.model_file import load as load_model
from streamlstm.service.history_topic import rules_of
from streamlstm.service.replay import Replay
from streamlstm.service.wiring import forecaster_settings
from tests.backtest.events import FIRST_MS, HOUR_MS
from tests.backtest.made import unlike_a_file
from tests.events.rows import batch_of
from tests.trust.models import write_model

EVICT, CAP = "state.on_full=evict", "state.max_streams_per_partition=6"
ROOM = {
    "for all": (),
    "for those that live": (f"state.ttl_ms={40 * HOUR_MS}",),
    "with some evicted": (EVICT, CAP, "state.max_streams=6"),
    "with some refused": (CAP, "state.max_streams=6"),
    "with all of it": (EVICT, CAP, "state.max_streams=6", f"state.ttl_ms={40 * HOUR_MS}"),
}


def partitions() -> list[EventBatch]:
    """Two, decoded anew at each call: what is done with rows sets their reasons."""
    records: list[list[tuple[bytes | None, bytes | None]]] = [[], []]
    for event in unlike_a_file():
        records[int(event.stream[1:]) % 2].append((event.stream.encode(), event.value))
    found = []
    for each in records:
        batch = batch_of(each, 1, [FIRST_MS + 10_000 * HOUR_MS] * len(each))
        JsonDecoder(FieldPaths(inputs=("value",))).decode(batch, 0, batch.n)
        found.append(batch)
    return found


@pytest.mark.parametrize("name", ROOM)
@pytest.mark.parametrize("batch_size", [1000, 100_000])
def test_it_gives_the_daemons_bytes(name: str, batch_size: int, tmp_path: Path) -> None:
    model, config = load_model(write_model(tmp_path / "m.safetensors", "judged")), load(None, {}, ROOM[name])
    settings = forecaster_settings(config, 1)
    collector, expected = Collector(("value",), rules_of(config, "arrival")), []
    encoder = ForecastEncoder(model.model_hash[:12], model.horizons, level=model.level)
    with ThreadPoolExecutor(1) as executor:
        for partition, batch in enumerate(partitions()):
            rows, batch.n = batch.n, 0
            batch.runs.clear()
            batch.extend_run(config.input.topic, partition, rows)
            forecasts = Forecaster(model, settings, executor).forecast(batch)
            expected += encoder.values(batch, forecasts, np.flatnonzero(batch.reason[:rows] == Reason.OK))
        collector.begin_source("events")
        for partition, batch in enumerate(partitions()):
            collector.add(batch, partition)
        history, output = collector.finish(), BytesIO()
        tail, told = history.tail_after(0.8), list[int]()
        replay = Replay(history, model, settings, executor, tail=tail, topic=config.input.topic, batch_size=batch_size)
        replayed = replay.run(output, told.append)
    assert output.getvalue().splitlines() == expected
    assert sum(told) == replayed.events == history.rows == len(expected) + replayed.refused.total()
    assert len(history.resets) > 50
