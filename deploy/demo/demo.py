"""`make demo`: real series through a real Apache Kafka and the real daemon, watched, checked and cleaned up.

    1  train a model with `streamlstm train` on the first part of the series of deploy/demo/data; meanwhile start Apache
       Kafka in a temporary folder (downloaded once, deploy/kafka) and create the topics, and compile the daemon's
       kernels (once for a machine)
    2  start `streamlstm run` with deploy/demo/demo.toml and that model
    3  replay the series from a process of its own; follow the forecasts as they are committed; half way, kill -9 the
       daemon and start it again: its state comes back from the snapshots
    4  stop the daemon by SIGTERM; check that every event got exactly one forecast or, where broken, one dead letter
    5  save a plot, print the summary, stop the broker, remove the folder

Run it from the root of the checkout: `.venv/bin/python -m deploy.demo.demo`. Exit codes: 0 all as promised, 1 not,
130 interrupted. Whatever the ending, no process is left behind.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from rich.console import Console

from deploy.demo.child import ROOT, Child, ChildError
from deploy.demo.daemon import GROUP, READY_SECONDS, Daemon
from deploy.demo.ledger import Ledger
from deploy.demo.pace import Pace
from deploy.demo.plot import save_plot
from deploy.demo.reader import Reader, lagging
from deploy.demo.scores import Scoreboard
from deploy.demo.series import load_series
from deploy.demo.summary import summary
from deploy.demo.training import Training
from deploy.demo.view import Board, LiveView, PlainView, View
from deploy.demo.wire import BROKEN, DEAD_LETTERS, FORECASTS, INPUT, PARTITIONS, SNAPSHOTS, Forecast
from deploy.kafka.local_kafka import VERSION, KafkaUnavailableError, LocalKafka, free_ports

SECONDS = 20.0
PATIENCE_SECONDS = 30.0
FRAME_SECONDS = 0.15


class DemoError(Exception):
    """A promise that was not kept; the message says which."""


class Demo:
    """One run of the demo. `stack` ends whatever was started, in reverse order."""

    def __init__(self, view: View, seconds: float, output: Path, stack: ExitStack) -> None:
        self._view, self._seconds, self._output, self._stack = view, seconds, output, stack
        self._series = load_series()
        self._expected = sum(len(one.y) for one in self._series)
        self._scores = Scoreboard(self._series)
        self._ledger = Ledger(self._series)
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlstm-demo-")))
        self._model = self._folder / "model.safetensors"

    def run(self) -> None:
        """All five steps. Raises DemoError, ChildError or KafkaUnavailableError at the first that fails."""
        begin = time.monotonic()
        self._view.say("training a model, starting Apache Kafka, compiling kernels (the first time takes longest)")
        training = self._start_training()
        compiling = self._start("deploy.demo.compile_kernels")
        bootstrap = self._start_kafka(self._folder / "kafka")
        self._finish_training(training)
        compiling.finish(READY_SECONDS)
        self._view.say(f"kernels compiled or found in their cache ({_since(begin)})")
        self._start_daemon(bootstrap)
        reader = Reader(bootstrap, GROUP)
        self._stack.callback(reader.close)
        feeder = self._start_feeder(bootstrap)
        self._follow(reader, feeder, bootstrap)
        self._daemon.stop()
        self._view.say("daemon stopped by SIGTERM with exit code 0, everything it had read committed")
        self._check(reader)
        plot = self._output / "forecasts.png"
        save_plot(self._scores, plot)
        said = ["", *summary(self._scores), "", f"plot: {plot}", f"all done after {_since(begin)}"]
        print("\n".join(said), flush=True)

    def _start_training(self) -> Training:
        training = Training(self._series, self._folder, self._model)
        self._stack.callback(training.kill)
        return training

    def _finish_training(self, training: Training) -> None:
        found = training.finish()
        events = sum(one.n_trained for one in self._series)
        what = f"streamlstm train --recipe auto: a model of {events:,} events, the first 60 % of each series"
        self._view.say(f"{what} ({training.seconds:.1f} s)")
        for line in found:
            self._view.say(f"  {line}")

    def _start(self, module: str, *arguments: str) -> Child:
        child = Child(module, *arguments, log=self._folder / f"{module}.log")
        self._stack.callback(child.kill)
        return child

    def _start_kafka(self, folder: Path) -> str:
        begin = time.monotonic()
        broker = LocalKafka(folder)
        self._stack.callback(broker.stop)
        bootstrap = broker.start()
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        # The events are years old, and records are kept by their own time: without this the broker may drop them.
        topic = {"num_partitions": PARTITIONS, "replication_factor": 1, "configs": {"retention.ms": "-1"}}
        compacted = topic | {"configs": {"cleanup.policy": "compact"}}
        topics = dict.fromkeys((INPUT, FORECASTS, DEAD_LETTERS), topic) | {SNAPSHOTS: compacted}
        admin.create_topics(topics, wait_for_metadata=True)
        admin.close()
        made = f"topics {', '.join(topics)} with {PARTITIONS} partitions each"
        self._view.say(f"Apache Kafka {VERSION} at {bootstrap}, {made} ({_since(begin)})")
        return bootstrap

    def _start_daemon(self, bootstrap: str) -> None:
        begin = time.monotonic()
        self._daemon = Daemon(bootstrap, free_ports(1)[0], self._model, self._folder / "daemon.log")
        self._stack.callback(self._daemon.kill)
        self._daemon.wait_ready()
        self._view.say(f"streamlstm run -c deploy/demo/demo.toml is ready ({_since(begin)})")

    def _kill_daemon(self, bootstrap: str) -> None:
        self._view.say(f"kill -9 of the daemon after {self._ledger.answered:,} answers; starting it again")
        self._daemon.kill()
        self._start_daemon(bootstrap)

    def _start_feeder(self, bootstrap: str) -> Child:
        feeder = self._start("deploy.demo.feeder", bootstrap, str(self._seconds))
        what = f"{len(self._series)} real series, {self._expected:,} events and {len(BROKEN)} broken ones"
        self._view.say(f"replaying {what} within {self._seconds:.0f} s")
        return feeder

    def _follow(self, reader: Reader, feeder: Child, bootstrap: str) -> None:
        """Book and show every answer until each record that was fed has one; the daemon is killed half way."""
        pace = Pace(time.monotonic())
        next_frame, was_killed = 0.0, False
        with self._view.following():
            while self._ledger.answered < self._expected + len(BROKEN):
                answers = reader.poll(timeout_ms=50)
                for answer in answers:
                    self._ledger.book(answer)
                    if isinstance(answer, Forecast):
                        self._scores.add(answer)
                now = time.monotonic()
                pace.observe(now, len(answers), self._daemon.figures)
                if now >= next_frame:
                    next_frame = now + FRAME_SECONDS
                    self._view.show(self._board(pace, now))
                self._daemon.require_running()
                self._require_progress(pace.idle_seconds(now), feeder)
                if not was_killed and 2 * self._ledger.answered > self._expected:
                    was_killed = True
                    self._kill_daemon(bootstrap)
            self._view.show(self._board(pace, time.monotonic()))

    def _require_progress(self, idle_seconds: float, feeder: Child) -> None:
        feeder.require_no_failure()
        if idle_seconds > PATIENCE_SECONDS:
            total = self._expected + len(BROKEN)
            raise DemoError(f"no answer for {idle_seconds:.0f} s; {self._ledger.answered} of {total} events have one")

    def _board(self, pace: Pace, now: float) -> Board:
        return Board(
            scores=self._scores,
            expected=self._expected,
            forecasts=self._ledger.forecasts,
            dead_letters=self._ledger.dead_letters.total(),
            events_per_second=pace.events_per_second,
            commit_ms=pace.commit_ms,
            elapsed_seconds=now - pace.begin,
        )

    def _check(self, reader: Reader) -> None:
        """With the daemon gone: read what is left, if anything, and judge all of it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not reader.at_end():
            if time.monotonic() > deadline:
                raise DemoError(f"the end of the forecasts can't be read within {PATIENCE_SECONDS:.0f} s")
            for answer in reader.poll(timeout_ms=200):
                self._ledger.book(answer)
        ends = reader.input_ends()
        problems = self._ledger.problems(ends) + lagging(ends, reader.committed())
        if problems:
            raise DemoError("the check failed:\n  " + "\n  ".join(problems))
        forecasts, dead_letters = self._ledger.forecasts, self._ledger.dead_letters.total()
        out = f"{sum(ends.values()):,} events in, {forecasts:,} forecasts + {dead_letters} dead letters out"
        self._view.say(f"checked, reading committed records only: {out}, each event exactly once and in order,")
        self._view.say("every stream's count of events unbroken by the kill: no state was lost")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that it too leaves no process behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


def _since(begin: float) -> str:
    return f"{time.monotonic() - begin:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the replay lasts (%(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output", help="folder of the plot (%(default)s)")
    arguments = parser.parse_args()
    console = Console()
    view: View = LiveView(console) if console.is_terminal else PlainView()
    try:
        with _terminated_as_interrupted(), ExitStack() as stack:
            Demo(view, arguments.seconds, arguments.output, stack).run()
    except KeyboardInterrupt:
        print("demo: interrupted, everything stopped", file=sys.stderr)
        return 130
    except (DemoError, ChildError, KafkaUnavailableError, KafkaError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
