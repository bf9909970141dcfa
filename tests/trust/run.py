"""The long part: members under a steady load and faults drawn at random, then the verdict. `make trust MINUTES=n`.

Ends with 0 when nothing was lost, doubled or reordered, no byte differs, and no member hung or ended as it shouldn't.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.trust.faults import bad_network, broker_kills, drawn, lives, steady, storms
from tests.trust.judge import judge
from tests.trust.models import KINDS, write_model
from tests.trust.report import Run, report
from tests.trust.stage import Script, Stage

REPORT = Path("build/trust-report.md")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults and the traffic; printed")
    parser.add_argument("--rate", type=float, default=1_000.0, help="events per second (%(default)s)")
    parser.add_argument("--streams", type=int, default=2_000, help="%(default)s")
    parser.add_argument("--members", type=int, choices=[2, 3], default=3, help="%(default)s")
    parser.add_argument("--report", type=Path, default=REPORT, help="%(default)s")
    parser.add_argument("--folder", type=Path, help="for the broker and the logs; kept when given, or when not clean")
    parser.add_argument("--without-bytes", action="store_true", help="only count: lost, duplicated, reordered")
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=1, help="3: no faults of the network")
    parser.add_argument("--model", choices=KINDS, default="carry", help="%(default)s")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every member")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    run = Run(
        given.minutes, seed, given.rate, given.streams, given.members, time.strftime("%Y-%m-%d"), given.brokers,
        given.model, tuple(given.set),
    )  # fmt: skip
    folder = given.folder or Path(tempfile.mkdtemp(prefix="trust-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, logs in {folder}", flush=True)
    clean = play(run, folder, given.report, not given.without_bytes)
    if clean and given.folder is None:
        shutil.rmtree(folder)
    return 0 if clean else 1


def play(run: Run, folder: Path, to: Path, compare_bytes: bool) -> bool:
    model = write_model(folder / "model.safetensors", run.model)
    settings = dict(text.split("=", 1) for text in run.settings)
    with Stage(
        folder, model, partitions=8, rate=run.rate, streams=run.streams, seed=run.seed, brokers=run.brokers,
        settings=settings,
    ) as stage:  # fmt: skip
        stage.play([everything(stage, run), _progress(stage, run)])
        stage.drain()
        stage.play([stage.end_members()])
        verdict = judge(stage.topics, model, folder, settings, compare_bytes)
        text = report(run, stage, verdict)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(text + "\n")
    print(text)
    return verdict.clean and not stage.complaints


def everything(stage: Stage, run: Run) -> Script:
    """Faults of every kind until the time is over; then the members are left alone until each is well."""
    first = stage.member("one", static=True, proxied=run.brokers == 1)
    members = [first, stage.member("two", static=True), stage.member("three")][: run.members]
    scripts = [lives(stage, member, drawn(stage, _chance(run, member.name))) for member in members]
    scripts += [broker_kills(stage, _chance(run, "broker")), storms(stage, _chance(run, "storms"))]
    if first.proxied:
        scripts.append(bad_network(stage, first, _chance(run, "network")))
    until = time.monotonic() + 60 * run.minutes
    while scripts:
        stage.over = time.monotonic() > until
        for script in tuple(scripts):
            try:
                next(script)
            except StopIteration:
                scripts.remove(script)
        yield
    for member in members:
        yield from steady(stage, member)


def _chance(run: Run, name: str) -> random.Random:
    return random.Random(f"{run.seed} {name}")


def _progress(stage: Stage, run: Run) -> Script:
    began = said = time.monotonic()
    while not stage.over:
        if time.monotonic() - said > 60:
            said = time.monotonic()
            ledger, minutes = stage.follower.ledger, (said - began) / 60
            accounts = f"{ledger.answers} answers, {ledger.duplicated} duplicated, {ledger.reordered} reordered"
            faults = f"{len(stage.faults)} faults, {stage.follower.waiting} partitions recovering"
            print(f"{minutes:.0f} of {run.minutes:.0f} minutes: {faults}; {accounts}", flush=True)
        yield


if __name__ == "__main__":
    sys.exit(main())
