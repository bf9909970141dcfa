"""Every importable fixture, as a user meets it: `streamlstm import`, then `streamlstm forecast`, held to the framework.

|y - y64| <= 2e-6 + 1e-5 |y64| for each output, event by event: carried from a fresh stream per sequence, and with the
window set to the length of the sequences. Inputs once as an array and once by name.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from streamlstm.cli.main import outcome

FIXTURES = Path(__file__).parent / "fixtures"
ROWS = [row for row in json.loads((FIXTURES / "manifest.json").read_text())["models"] if row["expect"] == "import"]


def write_events(path: Path, x: np.ndarray, names: list[str] | None) -> None:
    """One line per step and sequence, the sequences interleaved: (n, T, I) float32."""
    with path.open("w") as file:
        for t in range(x.shape[1]):
            for n in range(x.shape[0]):
                values = [float(v) for v in x[n, t]]
                event = {"stream": f"s{n}", "ts": 1_730_000_000_000 + t, "values": values}
                if names is not None:
                    event["values"] = dict(zip(names, values, strict=True))
                file.write(json.dumps(event) + "\n")


def forecasts(model: Path, events: Path, shape: tuple[int, int], out: Path) -> np.ndarray:
    """(n, T, O)"""
    assert outcome(["forecast", "--model", str(model), "--input", str(events), "--output", str(out)]) == 0
    n, steps = shape
    y = [json.loads(line)["yhat"] for line in out.read_text().splitlines()]
    return np.array(y).reshape(steps, n, -1).transpose(1, 0, 2)


def hold(y: np.ndarray, y64: np.ndarray) -> None:
    assert y.shape == y64.shape
    excess = np.abs(y - y64) - (2e-6 + 1e-5 * np.abs(y64))
    assert excess.max() <= 0, excess.max()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_forecasts_match_the_framework(row: dict[str, str], tmp_path: Path) -> None:
    expected = np.load(FIXTURES / row["io"])
    x, y64 = expected["X"], expected["y64"]
    sequences, steps, inputs = x.shape
    names = ["value"] if inputs == 1 else [f"in{k}" for k in range(inputs)]
    source = str(FIXTURES / row["file"])
    for advance in (["--carry"], ["--window", str(steps)]):
        model = tmp_path / "model.safetensors"
        assert outcome(["import", source, "-o", str(model), *advance, "--inputs", ",".join(names)]) == 0
        for by_name in (None, names):
            write_events(tmp_path / "in.jsonl", x, by_name)
            y = forecasts(model, tmp_path / "in.jsonl", (sequences, steps), tmp_path / "out.jsonl")
            hold(y[:, -1], y64)
            if "yseq64" in expected:
                hold(y, expected["yseq64"])
