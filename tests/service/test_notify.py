"""sd_notify(3): what a service manager hears, over a real datagram socket."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamlstm.errors import ConfigError
from streamlstm.service.health import COMMIT_LIMIT_SECONDS, Phase, Progress, liveness
from streamlstm.service.notify import MAX_STATUS, Notifier, one_line, status_of

STALLED, DRAIN = 60.0, 60.0
NOW = 1000.0


class Manager:
    """The other end: hears one datagram after the other."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}

    def heard(self) -> list[list[str]]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found

    def notifier(self, **changed: str) -> Notifier:
        return Notifier(self.environ | changed, stalled_after=STALLED, drain_seconds=DRAIN)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@streamlstm-test-{os.getpid()}"
    running = Manager(address)
    yield running
    running.socket.close()


def progress(phase: Phase, now: float = NOW, **facts: object) -> Progress:
    at_ease: dict[str, object] = {"last_turn": now, "connected_since": 0.0, "partitions": 8}
    return Progress(phase_since=now, phase=phase, **(at_ease | facts))  # type: ignore[arg-type]


def test_a_life(manager: Manager) -> None:
    with manager.notifier() as notifier:
        notifier.starting("loading")
        notifier.turn(progress(Phase.JOINING), NOW)
        notifier.turn(progress(Phase.RESTORING, restoring=3), NOW + 1)
        notifier.turn(progress(Phase.RUNNING), NOW + 1.1)
        notifier.turn(progress(Phase.RUNNING), NOW + 2)
        notifier.turn(progress(Phase.RUNNING), NOW + 2.2)
        notifier.turn(progress(Phase.RESTORING, restoring=1), NOW + 3.3)
        notifier.turn(progress(Phase.DRAINING), NOW + 3.4)
    assert manager.heard() == [
        ["STATUS=loading", "EXTEND_TIMEOUT_USEC=600000000"],
        ["STATUS=joining the group", "EXTEND_TIMEOUT_USEC=60000000"],
        ["STATUS=restoring 3 of 8 partitions", "EXTEND_TIMEOUT_USEC=60000000"],
        ["STATUS=8 of 8 partitions live", "READY=1", "WATCHDOG=1"],
        ["WATCHDOG=1"],
        ["STATUS=restoring 1 of 8 partitions", "WATCHDOG=1"],
        ["STATUS=draining", "STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000"],
        ["STATUS=stopped"],
    ]


def test_no_sign_of_life_while_work_stands_still(manager: Manager) -> None:
    """The loop turns, and what it read isn't committed: neither the watchdog nor a time-out is put off."""
    with manager.notifier() as notifier:
        stuck = {"waiting_since": NOW - COMMIT_LIMIT_SECONDS - 1, "connected_since": 0.0}
        notifier.turn(progress(Phase.RESTORING, restoring=1, **stuck), NOW)
        notifier.turn(progress(Phase.RUNNING), NOW + 1)
        notifier.turn(progress(Phase.RUNNING, NOW + 2, **stuck), NOW + 2)
        notifier.turn(progress(Phase.RUNNING, NOW + 3, **stuck), NOW + 3)
        assert manager.heard() == [
            ["STATUS=stalled: work waiting for 151.0 s of 150; restoring 1 of 8 partitions"],
            ["STATUS=8 of 8 partitions live", "READY=1", "WATCHDOG=1"],
            ["STATUS=stalled: work waiting for 153.0 s of 150; 8 of 8 partitions live"],
            ["STATUS=stalled: work waiting for 154.0 s of 150; 8 of 8 partitions live"],
        ]


def test_ready_is_said_again_when_nobody_took_it(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    with manager.notifier() as notifier:
        while notifier._send("X=" + "x" * 1000):
            continue
        notifier.turn(progress(Phase.RUNNING), NOW)
        notifier.turn(progress(Phase.RUNNING), NOW + 0.1)
        manager.heard()
        notifier.turn(progress(Phase.RUNNING), NOW + 0.2)
        assert manager.heard() == [["STATUS=8 of 8 partitions live", "READY=1", "WATCHDOG=1"]]
    assert caplog.messages == ["the service manager does not hear"], "said once, not each time"


def test_a_reload_is_framed_for_the_manager_once_it_knows_that_we_are_ready(manager: Manager) -> None:
    with manager.notifier() as notifier:
        notifier.reloading()
        notifier.reloaded()
        assert manager.heard() == []
        notifier.turn(progress(Phase.RUNNING), NOW)
        manager.heard()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        notifier.reloaded()
        (begun, ended) = manager.heard()
    assert begun[0] == "RELOADING=1"
    name, _, usec = begun[1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(usec) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert ended == ["READY=1"]


def test_the_last_word_is_why_it_ends(manager: Manager) -> None:
    with pytest.raises(ConfigError), manager.notifier():
        raise ConfigError(["one thing", "another"])
    assert manager.heard() == [["STOPPING=1", "STATUS=one thing another"]]


def test_no_watchdog_for_another_process_or_none(manager: Manager) -> None:
    for changed in ({"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}):
        with manager.notifier(**changed) as notifier:
            notifier.turn(progress(Phase.RUNNING), NOW)
            assert "WATCHDOG=1" not in manager.heard()[0]


def test_a_short_watchdog_is_fed_four_times_in_its_span(manager: Manager) -> None:
    with manager.notifier(WATCHDOG_USEC="2000000") as notifier:
        for tick in range(31):
            notifier.turn(progress(Phase.RUNNING), NOW + tick / 10)
    assert sum("WATCHDOG=1" in each for each in manager.heard()) == 7


def test_nothing_happens_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "socket")
    with Notifier({}, stalled_after=STALLED, drain_seconds=DRAIN) as notifier:
        notifier.starting("loading")
        notifier.turn(progress(Phase.RUNNING), NOW)
        notifier.reloading()
        notifier.reloaded()


@pytest.mark.parametrize(
    "environ",
    [{"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "@"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
)
def test_what_a_manager_sets_is_understood_or_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(environ))):
        Notifier(environ, stalled_after=STALLED, drain_seconds=DRAIN)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (Progress(NOW), "starting"),
        (progress(Phase.CONNECTING), "the brokers are away"),
        (progress(Phase.RUNNING, partitions=0), "standing by, no partition is assigned"),
        (progress(Phase.RUNNING, connected_since=None), "8 of 8 partitions live; the brokers do not answer"),
        (
            progress(Phase.RUNNING, stopped={("events", 3): "records\nare gone"}),
            "7 of 8 partitions live; stopped events-3: records are gone",
        ),
    ],
)
def test_status(facts: Progress, said: str) -> None:
    assert status_of(facts, liveness(facts, NOW, STALLED)) == said


def test_a_status_is_one_line_of_bounded_length() -> None:
    assert one_line("a\n b\x1fc") == "a b c"
    assert len(one_line("x" * 5_000)) == MAX_STATUS


RELOADING = """
import sys, time
from streamlstm.config import load
from streamlstm.service import logs
from streamlstm.service.health import Phase, Progress
from streamlstm.service.notify import Notifier
from streamlstm.service.reload import Reload
from pathlib import Path

def read():
    return load(Path(sys.argv[1]), {})

config = read()
logs.configure(config.log.format, config.log.level)
with Notifier({}, stalled_after=1.0, drain_seconds=1.0) as notifier, Reload(config, read, notifier) as reload:
    progress = Progress(0.0, listeners=(reload.turn,))
    print("ready", flush=True)
    for line in sys.stdin:
        progress.enter(Phase.RUNNING, 0.0)
        print("turned", flush=True)
"""


def test_sighup_takes_over_the_log_and_names_what_waits(tmp_path: Path) -> None:
    file = tmp_path / "streamlstm.toml"
    file.write_text('[log]\nlevel = "warning"\n')
    with subprocess.Popen(
        [sys.executable, "-c", RELOADING, str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"

        def hang_up(text: str) -> None:
            assert child.stdin is not None
            assert child.stdout is not None
            file.write_text(text)
            child.send_signal(signal.SIGHUP)
            child.stdin.write("turn\n")
            child.stdin.flush()
            assert child.stdout.readline() == "turned\n"

        hang_up('[log]\nlevel = "info"\nformat = "logfmt"\n[commit]\ninterval_ms = 10\n[kafka.security]\n')
        hang_up('[log]\nlevel = "loud"\n[comit]\n')
        hang_up('[log]\nlevel = "info"\nformat = "logfmt"\n')
        child.stdin.close()
        assert child.stderr is not None
        logged = [line.partition(" level=")[2] for line in child.stderr.read().splitlines()]
    assert child.returncode == 0
    here = "logger=streamlstm.service.reload "
    assert logged[:2] == [
        f'warning {here}msg="changed settings wait for a restart" settings=commit.interval_ms',
        f"info {here}msg=reloaded changed=log.format,log.level",
    ]
    assert all(line.startswith(f'error {here}msg="the configuration stays as it was" why=') for line in logged[2:4])
    assert "log.level" in logged[2] + logged[3]
    assert "comit" in logged[2] + logged[3]
    assert logged[4:] == [f"info {here}msg=reloaded changed=nothing"], "what is as at the start waits for nothing"
