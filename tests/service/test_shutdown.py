"""Signals, sent to real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from streamlstm.service.shutdown import Shutdown

PROGRAM = """
import sys, time
from streamlstm.service import logs
from streamlstm.service.shutdown import Shutdown

logs.configure("logfmt", "info")
with Shutdown() as shutdown:
    print("ready", flush=True)
    shutdown.wait(60)
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
    before = time.monotonic()
    daemon.send_signal(number)
    out, err = daemon.communicate(timeout=20)
    assert time.monotonic() - before < 10, "the wait was not cut short"
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


def test_requested_from_inside_wakes_and_needs_no_signal() -> None:
    woken: list[str] = []
    shutdown = Shutdown(wake=lambda: woken.append("woken"))
    assert not shutdown.wait(0.0)
    shutdown.request("the test")
    before = time.monotonic()
    assert shutdown.wait(60)
    assert time.monotonic() - before < 1
    assert woken == ["woken"]
    shutdown.close()


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    codes: list[int] = []
    with Shutdown(end=codes.append) as shutdown:
        os.kill(os.getpid(), signal.SIGTERM)
        assert shutdown.requested
        os.kill(os.getpid(), signal.SIGTERM)
    assert codes == [143]
    assert signal.getsignal(signal.SIGTERM) is before
