"""import --level --guard: intervals, scores and a guard for a model from elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from streamlstm.cli.main import outcome


@pytest.mark.parametrize("advance", [["--carry"], ["--window", "3"]])
def test_an_imported_model_can_be_judged(advance: list[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = {
        "lstm.weight_ih_l0": (16, 1), "lstm.weight_hh_l0": (16, 4), "lstm.bias_ih_l0": (16,), "lstm.bias_hh_l0": (16,),
        "fc.weight": (1, 4), "fc.bias": (1,),
    }  # fmt: skip
    arrays = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in weights.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "weights.safetensors")
    walk = rng.normal(size=300).cumsum() + 50
    events = [json.dumps({"stream": "a", "ts": 1000 * i, "value": value}) for i, value in enumerate(walk.tolist())]
    (tmp_path / "in.jsonl").write_text("\n".join(events))
    model, output = tmp_path / "model.safetensors", tmp_path / "out.jsonl"
    command = ["import", tmp_path / "weights.safetensors", "-o", model, *advance, "--level", "0.8", "--guard"]
    assert outcome([str(part) for part in command]) == 0
    command = ["forecast", "--model", model, "--input", tmp_path / "in.jsonl", "--output", output]
    assert outcome([str(part) for part in command]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows[0]["lower"] == [None]
    assert {row["level"] for row in rows} == {0.8}
    inside = [row["lower"][0] <= y <= row["upper"][0] for row, y in zip(rows[100:-1], walk[101:], strict=True)]
    assert 0.7 < np.mean(inside) < 0.9
    assert all(row["anomaly_score"] is not None for row in rows[150:])
    error = np.abs([row["yhat"][0] - y for row, y in zip(rows[20:-1], walk[21:], strict=True)]).mean()
    assert error < 1.2 * np.abs(np.diff(walk))[20:].mean()  # the weights are noise, the guard isn't
