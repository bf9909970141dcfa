"""Is a backtest production? On any CSV files: `make backtest-through-kafka DATA=FOLDER`.

A model is trained on them with `streamlstm train` (few steps: bytes don't ask how good it is; guard, intervals and
anomaly scores are on), all events go through a real Kafka to a real daemon that is killed with -9 on the way, and every
byte that it wrote is held to `streamlstm backtest FILE` and `streamlstm backtest --topic`. Folders and files are read
as `train` reads them; --sets takes the data sets of benchmarks/accuracy.py from --data. --set KEY=VALUE is a setting of
all commands.

Ends with 0 when every event has one answer and no byte differs.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.accuracy_sets import SETS
from deploy.kafka.local_kafka import LocalKafka
from streamlstm.cli.main import outcome
from streamlstm.model.model_file import load
from tests.backtest.events import events_of, write_series
from tests.backtest.through_kafka import compare_with_files, compare_with_topic, serve

DATA = Path(__file__).parents[2] / "shared" / "data"  # as benchmarks/accuracy.py has it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="CSV files, or folders of them: one set")
    parser.add_argument("--sets", default="", help=f"some of {','.join(SETS)}")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of --sets (%(default)s)")
    parser.add_argument("--model", type=Path, help="instead of one that is trained here")
    parser.add_argument("--horizon", type=int, default=24, help="%(default)s")
    parser.add_argument("--steps", type=int, default=200, help="of training (%(default)s)")
    parser.add_argument("--inputs", default="value", metavar="A,B,..", help="columns; the first is forecast")
    parser.add_argument("--kills", type=int, default=1, help="of the daemon (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for everything that is written; kept when given, or not clean")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all commands")
    given = parser.parse_args()
    unknown = {name for name in given.sets.split(",") if name} - set(SETS)
    if unknown or not (given.paths or given.sets):
        parser.error(f"expected files, folders, or --sets of {', '.join(SETS)}; found {', '.join(unknown) or 'none'}")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="backtest-"))
    folder.mkdir(parents=True, exist_ok=True)
    with LocalKafka(folder / "kafka") as broker:
        clean = [hold(broker.bootstrap, name, paths, given, folder) for name, paths in chosen(given, folder)]
    if all(clean) and given.folder is None:
        shutil.rmtree(folder)
    return 0 if all(clean) else 1


def chosen(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The sets: what each is called, and its files."""
    if given.paths:
        yield re.sub("[^A-Za-z0-9_-]", "-", Path(given.paths[0]).resolve().name.split(".")[0]), given.paths
    for name in filter(None, given.sets.split(",")):
        series = {each.name: each.y for each in SETS[name](given.data)}
        yield name, [str(write_series(folder / f"{name}.csv", series))]


def train(paths: Sequence[str], model: Path, given: argparse.Namespace) -> Path:
    options = ["--horizon", given.horizon, "--steps", given.steps, "--inputs", given.inputs]
    options += [part for text in given.set for part in ("--set", text)]
    if code := outcome(["train", *paths, "-o", str(model), *map(str, options)]):
        sys.exit(code)
    return model


def hold(bootstrap: str, name: str, paths: Sequence[str], given: argparse.Namespace, folder: Path) -> bool:
    """Whether daemon and backtest gave the same bytes for one set, which is printed."""
    place = folder / f"of-{name}"
    place.mkdir()
    settings = dict(text.split("=", 1) for text in given.set)
    model, topic = given.model or train(paths, place / "model.safetensors", given), f"events-{name}"
    events = events_of(paths, load(model).inputs)
    served = serve(bootstrap, model, topic, events, settings, place, given.kills)
    of_files = compare_with_files(served, model, paths, settings)
    of_topic = compare_with_topic(served, bootstrap, topic, model, settings)
    answers = of_topic.same + of_topic.differing
    is_answered = answers + served.letters == len(events)
    print(
        f"{name}: {len({event.stream for event in events}):,} streams, {len(events):,} events, killed after "
        f"{', '.join(f'{each:,}' for each in served.committed)}; {answers:,} forecasts, {served.letters:,} dead letters"
        f"{'' if is_answered else ': SOME EVENTS HAVE NO ANSWER'}"
    )
    for what, found in (("backtest FILE", of_files), ("backtest --topic", of_topic)):
        print(f"  {what}: {found.same:,} forecasts of {found.bytes:,} bytes the same, {found.differing:,} differ")
        for example in found.examples:
            print(f"  {example}")
    sys.stdout.flush()
    return is_answered and not of_files.differing and not of_topic.differing


if __name__ == "__main__":
    sys.exit(main())
