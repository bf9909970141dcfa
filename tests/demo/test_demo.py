"""The whole demo, as `make demo` runs it but faster: real broker, real daemon, and nothing left behind however it ends.

Of a kill -9 of the demo itself the kernel takes care (setpriv --pdeathsig), so that is tried too.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.kafka


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the demo keeps its temporary folder; no process may speak of it in the end."""
    folder = tmp_path / "demo-tmp"
    folder.mkdir()
    yield folder
    assert processes_of(folder) == []


def processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that name `folder` or were started with it as TMPDIR."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in told and process.name != str(os.getpid()):
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@contextmanager
def started(folder: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "deploy.demo.demo", "--seconds", str(seconds), "--output", str(folder / "out")]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        yield demo
        demo.kill()


def wait_for_line(demo: subprocess.Popen[str], text: str) -> None:
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"no line with {text!r} in: {''.join(seen)}")


def wait_gone(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def test_the_whole_demo(folder: Path) -> None:
    with started(folder, seconds=4) as demo:
        shown, _ = demo.communicate(timeout=200)
    assert demo.returncode == 0, shown
    assert "45,113 events in, 45,108 forecasts + 5 dead letters out, each event exactly once" in shown
    assert "a model of 27,062 events" in shown
    assert "chosen: " in shown
    assert re.search(r"error / naive 0\.8\d\d \(geometric mean\), better on 1[0-2] of 12 streams", shown)
    assert re.search(r"(8[89]|9[012])\.\d % of 18,04\d values within their 90 % intervals", shown)
    assert (folder / "out" / "forecasts.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    with started(folder, seconds=60) as demo:
        wait_for_line(demo, "events/s · commit")
        demo.send_signal(number)
        shown, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, shown
    assert "interrupted, everything stopped" in shown
    assert list(folder.iterdir()) == []


def test_killed_it_leaves_no_process(folder: Path) -> None:
    with started(folder, seconds=60) as demo:
        wait_for_line(demo, "replaying")
        demo.kill()
    wait_gone(folder)


def test_a_daemon_that_dies_is_told(folder: Path) -> None:
    with started(folder, seconds=60) as demo:
        wait_for_line(demo, "events/s · commit")
        kill_by_command_line(folder, "streamlstm run")
        shown, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1, shown
    assert "demo: streamlstm ended by itself with exit code -9; the end of its log:" in shown
    assert list(folder.iterdir()) == []


def kill_by_command_line(folder: Path, text: str) -> None:
    """kill -9 the one process of this test's demo whose command line holds `text`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            mine = str(folder).encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if mine and text in command:
            os.kill(int(process.name), signal.SIGKILL)
