"""The capacity table of docs/size.md: memory by `streamlstm size`, CPU by the figures of README.md, "Measured".

    .venv/bin/python benchmarks/capacity.py            prints it
    .venv/bin/python benchmarks/capacity.py --write    puts it into docs/size.md

CPU per event is that of the whole path less the step it was measured with, plus one step of the model in question on
streams at random ("cold"). The state written is every row with a key of 16 bytes once in snapshot.interval_ms.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from streamlstm.config import load
from streamlstm.engine.prediction import row_layout
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, default_inputs, no_scaling
from streamlstm.model.parameters import Layer, Parameters
from streamlstm.service.sizing import predict

ROOT = Path(__file__).resolve().parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "size.md"
BEGIN, END = "<!-- capacity: benchmarks/capacity.py --write -->\n", "<!-- end of capacity -->\n"
SHAPES = ((1, (32,), 1), (1, (50,), 1), (1, (64,), 1), (8, (64, 64), 12), (4, (128, 128), 24), (1, (256,), 1))
STREAMS = (100_000, 1_000_000, 10_000_000)
MEASURED_WITH = (1, (50,), 1)
KEY_BYTES = 16

Shape = tuple[int, tuple[int, ...], int]


def model_of(shape: Shape) -> Model:
    """A model of this shape, with weights that are 0: size and speed don't depend on them."""
    inputs, hidden, outputs = shape
    sizes = (inputs, *hidden)
    layers = tuple(
        Layer(*(np.zeros(of, np.float32) for of in ((4 * units, sizes[k]), (4 * units, units), (4 * units,))))
        for k, units in enumerate(hidden)
    )
    parameters = Parameters(layers, np.zeros((outputs, hidden[-1]), np.float32), np.zeros(outputs, np.float32))
    return Model(
        parameters=parameters, window=0, inputs=default_inputs(inputs), target=0, predicts="value",
        horizons=tuple(range(1, outputs + 1)), scaling=no_scaling(inputs), interval_ms=None, origin={},
        golden=make_golden(parameters),
    )  # fmt: skip


def cold_steps(readme: str) -> dict[Shape, float]:
    """Steps/s of one core by shape, from the README's table "The step kernel"."""
    found: dict[Shape, float] = {}
    for row in re.finditer(r"^\| (\d+), (\d+), (\d+), (\d+) \| [^|]+ \| ([\d.]+) \(", readme, re.MULTILINE):
        inputs, units, layers, outputs = (int(row[k]) for k in range(1, 5))
        found[inputs, (units,) * layers, outputs] = float(row[5]) * 1e6
    return found


def path_seconds(readme: str) -> float:
    """CPU seconds per event of the whole path, from the README's table "The whole path"."""
    found = re.search(r"^\| streamlstm \| ([\d.]+) us \|", readme, re.MULTILINE)
    if found is None:
        raise ValueError(f"{README}: expected a row `| streamlstm | .. us |`")
    return float(found[1]) / 1e6


def table(readme: str) -> str:
    steps = cold_steps(readme)
    around = path_seconds(readme) - 1 / steps[MEASURED_WITH]
    rows = ["| inputs, units, outputs | bytes per stream (state in 16 bits) | "]
    rows[0] += " | ".join(f"{n:,} streams" for n in STREAMS)
    rows[0] += " | state written, 1M streams | events/s of one core |"
    rows.append("|---" * (4 + len(STREAMS)) + "|")
    for shape in SHAPES:
        inputs, hidden, outputs = shape
        model = model_of(shape)
        sizes = [predict(load(None, {}, [f"state.max_streams={n}", "engine.threads=1"]), model) for n in STREAMS]
        half = predict(load(None, {}, ["engine.state_dtype=float16", "engine.threads=1"]), model)
        interval_seconds = load(None, {}).snapshot.interval_ms / 1000
        written = 1e6 * (row_layout(model, "float32").row_bytes + KEY_BYTES) / interval_seconds
        cells = [
            f"{inputs}, {' + '.join(map(str, hidden))}, {outputs}",
            f"{sizes[0].bytes_per_stream:,.0f} ({half.bytes_per_stream:,.0f})",
            *(f"{size.resident_bytes / 1e9:.1f} GB" for size in sizes),
            f"{written / 1e6:.0f} MB/s",
            f"{1e-3 / (around + 1 / steps[shape]):,.0f},000",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def with_table(page: str, readme: str) -> str:
    """The page with the table as it should be now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(readme)}{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    readme = README.read_text()
    if parser.parse_args().write:
        PAGE.write_text(with_table(PAGE.read_text(), readme))
    else:
        print(table(readme), end="")


if __name__ == "__main__":
    main()
