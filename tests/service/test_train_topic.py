"""`streamlstm train --topic`: the model is that of a file with the same events."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from streamlstm.cli.main import commands
from streamlstm.model.model_file import load
from tests.service.test_history_topic import BEGIN, MINUTE, produce
from tests.transport.live import make_topic

SMALL = ("--hidden", "4", "--batch", "8", "--steps", "20")


@pytest.mark.kafka
def test_a_topic_and_a_file_give_one_model(kafka: str, tmp_path: Path) -> None:
    topic, random = make_topic(kafka, 2), np.random.default_rng(1)
    values = {key: np.round(np.sin(np.arange(200) / 4) + random.normal(size=200), 4) for key in ("a", "b")}
    for partition, key in enumerate(values):
        records = [
            (key.encode(), b'{"ts":%d,"value":%r}' % (BEGIN + MINUTE * k, float(value)), BEGIN + MINUTE * k)
            for k, value in enumerate(values[key])
        ]
        produce(kafka, topic, partition, records)
    lines = [f"{key},{BEGIN + MINUTE * k},{float(v)!r}\n" for key in values for k, v in enumerate(values[key])]
    (tmp_path / "p.csv").write_text("stream,ts,value\n" + "".join(lines))
    settings = ("--set", f'kafka.bootstrap_servers=["{kafka}"]', "--set", f"input.topic={topic}")
    for name, source in (("topic", ("--topic", *settings)), ("file", (str(tmp_path / "p.csv"),))):
        found = CliRunner().invoke(commands, ["train", *source, "-o", str(tmp_path / name), *SMALL])
        assert found.exit_code == 0, found.output
    assert load(tmp_path / "topic").model_hash == load(tmp_path / "file").model_hash
    stop = f"{BEGIN + MINUTE * 100}"
    found = CliRunner().invoke(
        commands, ["train", "--topic", *settings, "--to", stop, "-o", str(tmp_path / "m"), *SMALL]
    )
    assert "200 of " in found.stderr, found.output
