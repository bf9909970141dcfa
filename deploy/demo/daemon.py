"""The daemon as a real process: `streamlstm run`, watched from outside as an operator would."""

import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.demo.child import end_of, kill, start_python

CONFIG = Path(__file__).resolve().with_name("demo.toml")
GROUP = "streamlstm-demo"
READY_SECONDS = 180.0
STOP_SECONDS = 20.0
COMMIT_STAGE = ("streamlstm_stage_duration_seconds", (("stage", "commit"),))


class DaemonError(Exception):
    """The daemon didn't do its part; the message ends with the end of its log."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Read from /metrics: commits so far and the seconds spent in them, bytes of resident memory."""

    commits: float
    commit_seconds: float
    resident_bytes: float

    def commit_ms_since(self, earlier: "Figures") -> float | None:
        """Mean duration of the commits after `earlier`; None when there were none."""
        commits = self.commits - earlier.commits
        return 1000 * (self.commit_seconds - earlier.commit_seconds) / commits if commits else None


class Daemon:
    """`streamlstm run` against a broker; its log goes to a file, its metrics to a port."""

    def __init__(self, bootstrap: str, metrics_port: int, log: Path) -> None:
        self.log = log
        self._url = f"http://127.0.0.1:{metrics_port}"
        overrides = [f'kafka.bootstrap_servers=["{bootstrap}"]', f"metrics.port={metrics_port}"]
        settings = [word for override in overrides for word in ("--set", override)]
        self._process = start_python("streamlstm", "run", "-c", str(CONFIG), *settings, log=log)

    def wait_ready(self) -> None:
        """Return once /readyz says so. Raises DaemonError when it ends first or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while self._get("/readyz") is None:
            self.require_running()
            if time.monotonic() > deadline:
                raise DaemonError(f"not ready after {READY_SECONDS:.0f} s{end_of(self.log)}")
            time.sleep(0.05)

    def require_running(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise DaemonError(f"ended by itself with exit code {code}{end_of(self.log)}")

    def figures(self) -> Figures | None:
        """What /metrics says now; None when it doesn't answer in time."""
        page = self._get("/metrics")
        return None if page is None else read_figures(page)

    def stop(self) -> None:
        """SIGTERM: the daemon commits what it has read and exits with 0. Raises DaemonError when it doesn't."""
        self.require_running()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DaemonError(f"still there {STOP_SECONDS:.0f} s after SIGTERM{end_of(self.log)}") from None
        if code != 0:
            raise DaemonError(f"exit code {code} after SIGTERM, expected 0{end_of(self.log)}")

    def kill(self) -> None:
        """End it whatever it does; nothing when it has ended."""
        kill(self._process)

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self._url + path, timeout=1) as answer:
                return str(answer.read().decode())
        except (OSError, HTTPException):
            return None


def read_figures(page: str) -> Figures:
    """The figures in a /metrics page (Prometheus text format)."""
    values: dict[tuple[str, Sequence[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    name, labels = COMMIT_STAGE
    return Figures(
        commits=values.get((f"{name}_count", labels), 0.0),
        commit_seconds=values.get((f"{name}_sum", labels), 0.0),
        resident_bytes=values.get(("process_resident_memory_bytes", ()), 0.0),
    )
