"""Signals, sent to real processes."""

import os
import signal
import subprocess
import sys

import pytest

from streamlstm.service.shutdown import Shutdown

PROGRAM = """
import sys, time
from streamlstm.service import logs
from streamlstm.service.shutdown import Shutdown

logs.configure("logfmt", "info")
with Shutdown() as shutdown:
    print("ready", flush=True)
    while not shutdown.requested:
        time.sleep(0.01)
    print("draining", flush=True)
    try:
        time.sleep(float(sys.argv[1]))
    finally:
        print("drained", flush=True)
"""


def started(seconds: float) -> subprocess.Popen[str]:
    """A process that drains for so long, waiting for its signal."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "ready\n"
    return daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains_and_ends_clean(number: signal.Signals) -> None:
    daemon = started(0.05)
    daemon.send_signal(number)
    out, err = daemon.communicate(timeout=20)
    assert (daemon.returncode, out) == (0, "draining\ndrained\n")
    assert f"level=info logger=streamlstm.service.shutdown msg=stopping why={number.name}" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_ends_at_once(number: signal.Signals, code: int) -> None:
    daemon = started(60)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "draining\n"
    daemon.send_signal(number)
    out, err = daemon.communicate(timeout=20)
    assert (daemon.returncode, out) == (code, ""), "nothing was unwound"
    assert "forced to stop at once" in err


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    codes: list[int] = []
    with Shutdown(end=codes.append) as shutdown:
        os.kill(os.getpid(), signal.SIGTERM)
        assert shutdown.requested
        os.kill(os.getpid(), signal.SIGTERM)
    assert codes == [143]
    assert signal.getsignal(signal.SIGTERM) is before


def test_asked_to_end_before_the_daemon_is_there_it_ends_at_once() -> None:
    """By a handler of our own: process 1 of a container would not be ended by a signal without one."""
    script = (
        "import os, signal\n"
        "from streamlstm.cli import serve\n"
        "def asked(*given):\n"
        "    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    raise AssertionError('it goes on')\n"
        "serve.load_cluster_config = asked\n"
        "serve.run.callback(None, ())\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
