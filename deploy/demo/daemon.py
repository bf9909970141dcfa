"""The daemon as a real process: `streamlstm run`, watched from outside as an operator would."""

import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.demo.child import Child

CONFIG = Path(__file__).resolve().with_name("demo.toml")
GROUP = "streamlstm-demo"
READY_SECONDS = 180.0
STOP_SECONDS = 20.0
COMMIT_STAGE = ("streamlstm_stage_duration_seconds", (("stage", "commit"),))

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Read from /metrics: commits so far and the seconds spent in them."""

    commits: float
    commit_seconds: float

    def commit_ms_since(self, earlier: "Figures") -> float | None:
        """Mean duration of the commits after `earlier`; None when there were none, or it was started anew."""
        commits = self.commits - earlier.commits
        return 1000 * (self.commit_seconds - earlier.commit_seconds) / commits if commits > 0 else None


class Daemon:
    """`streamlstm run` of a model file against a broker; its log goes to a file, its metrics to a port."""

    def __init__(self, bootstrap: str, metrics_port: int, model: Path, log: Path) -> None:
        self._url = f"http://127.0.0.1:{metrics_port}"
        overrides = [
            f'kafka.bootstrap_servers=["{bootstrap}"]',
            f"metrics.port={metrics_port}",
            f"model.path={model}",
        ]
        settings = [word for override in overrides for word in ("--set", override)]
        self._child = Child("streamlstm", "run", "-c", str(CONFIG), *settings, log=log)

    def wait_ready(self) -> None:
        """Return once /readyz says so. Raises ChildError when the daemon ends first or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while self._get("/readyz") is None:
            self._child.require_running()
            if time.monotonic() > deadline:
                raise self._child.error_after(READY_SECONDS, "isn't ready")
            time.sleep(0.05)

    def require_running(self) -> None:
        """Raises ChildError when it has ended."""
        self._child.require_running()

    def figures(self) -> Figures | None:
        """What /metrics says now; None when it doesn't answer in time."""
        page = self._get("/metrics")
        return None if page is None else read_figures(page)

    def stop(self) -> None:
        """SIGTERM: the daemon commits what it has read and exits with 0. Raises ChildError when it doesn't."""
        self._child.terminate(STOP_SECONDS)

    def kill(self) -> None:
        """End it whatever it does; nothing when it has ended."""
        self._child.kill()

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self._url + path, timeout=1) as answer:
                return str(answer.read().decode())
        except (OSError, HTTPException):
            return None


def read_figures(page: str) -> Figures:
    """The figures in a /metrics page (Prometheus text format)."""
    values: dict[Sample, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    name, labels = COMMIT_STAGE
    return Figures(commits=values[f"{name}_count", labels], commit_seconds=values[f"{name}_sum", labels])
