"""Processes that the demo starts, and that end with it however it ends."""

import signal
import subprocess
import sys
from pathlib import Path

from deploy.kafka.local_kafka import die_with_parent

ROOT = Path(__file__).resolve().parents[2]


class ChildError(Exception):
    """A process didn't do its part; the message ends with the end of its log."""


class Child:
    """`python -m module arguments...` from the root of the checkout, its output in `log`.

    In a process group of its own, so that Ctrl-C reaches the demo alone, which then ends it; and where util-linux's
    setpriv is there, the kernel kills it when the demo dies without a word.
    """

    def __init__(self, module: str, *arguments: str, log: Path) -> None:
        self._name, self._log = module, log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*die_with_parent(), sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def require_running(self) -> None:
        if self._process.poll() is not None:
            raise self._error(f"ended by itself with exit code {self._process.returncode}")

    def require_no_failure(self) -> None:
        """It may run, or have ended with 0."""
        if self._process.poll() not in (None, 0):
            raise self._error(f"ended with exit code {self._process.returncode}")

    def finish(self, seconds: float) -> None:
        """Wait until it ends. Raises ChildError when that takes too long or its exit code isn't 0."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._error(f"still runs after {seconds:.0f} s") from None
        self.require_no_failure()

    def terminate(self, seconds: float) -> None:
        """SIGTERM, and the same as `finish`."""
        self.require_running()
        self._process.send_signal(signal.SIGTERM)
        self.finish(seconds)

    def kill(self) -> None:
        """End it whatever it does; nothing when it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def error_after(self, seconds: float, what: str) -> ChildError:
        return self._error(f"{what} after {seconds:.0f} s")

    def log_lines(self) -> list[str]:
        """What it has said so far."""
        return self._log.read_text(errors="replace").splitlines()

    def _error(self, what: str) -> ChildError:
        return ChildError("\n".join([f"{self._name} {what}; the end of its log:", *self.log_lines()[-20:]]))
