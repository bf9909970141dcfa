"""A real Prometheus with the project's rules, for which time passes faster."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from deploy.kafka.local_kafka import die_with_parent
from tests.daemon_process import free_port

HERE = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
RULES = sorted((HERE / "rules").glob("*.yml"))
PACKAGE = ["apt-get", "install", "-y", "--no-install-recommends", "prometheus"]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\[|for: )(\d+)([smhd])")


class PrometheusMissingError(Exception):
    """Prometheus can't be installed here; the message says what to do."""


def require_prometheus() -> None:
    """Installed when we are root on a Debian, else the one command that does it."""
    if shutil.which("prometheus") and shutil.which("promtool"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(PACKAGE, check=True, env=environment)
        return
    raise PrometheusMissingError(f"Prometheus is not there; install with: sudo {' '.join(PACKAGE)}")


def promtool(*arguments: object, given: bytes | None = None) -> None:
    """Raises CalledProcessError, after it was printed what promtool found, unless all is well."""
    subprocess.run(["promtool", *map(str, arguments)], input=given, check=True)


def faster(rules: str, factor: float) -> str:
    """The same rules with windows and waiting times shorter by `factor`; thresholds and names as they are."""

    def shorter(match: re.Match[str]) -> str:
        before, number, unit = match.groups()
        return f"{before}{max(1000, round(int(number) * _SECONDS[unit] * 1000 / factor))}ms"

    return _DURATION.sub(shorter, rules)


class Prometheus:
    """Scrapes every second what `watch` was told. Times of rules are `factor` times shorter."""

    def __init__(self, folder: Path, factor: float) -> None:
        self._folder = folder
        self._targets = folder / "targets.json"
        self._watched: dict[str, str] = {}
        self._port = free_port()
        self.rules = [folder / path.name for path in RULES]
        folder.mkdir(parents=True)
        for source, target in zip(RULES, self.rules, strict=True):
            target.write_text(faster(source.read_text(), factor))
        self._write()
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n"
            f"rule_files: {json.dumps([*map(str, self.rules)])}\n"
            f"scrape_configs: [{{job_name: streamlstm, file_sd_configs: [{{files: [{self._targets}]}}]}}]\n"
        )
        promtool("check", "config", folder / "prometheus.yml")

    def __enter__(self) -> "Prometheus":
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *die_with_parent(), "prometheus", f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/data", f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.query("1")
                return self
            except OSError:
                assert self._process.poll() is None, f"Prometheus ended; see {self._folder}/prometheus.log"
                assert time.monotonic() < deadline, "Prometheus doesn't answer after 60 s"
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def watch(self, port: int, job: str) -> None:
        self._watched[f"127.0.0.1:{port}"] = job
        self._write()

    def forget(self, port: int) -> None:
        self._watched.pop(f"127.0.0.1:{port}", None)
        self._write()

    def _write(self) -> None:
        """Under another name first: Prometheus reads it as soon as it changes."""
        groups = [{"targets": [target], "labels": {"job": job}} for target, job in self._watched.items()]
        draft = self._targets.with_suffix(".draft")
        draft.write_text(json.dumps(groups))
        draft.rename(self._targets)

    def query(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(f"query?query={urllib.request.quote(expression)}")["result"]
        return found

    def alerts(self) -> set[tuple[str, str, str]]:
        """Name, job ("" where it has none) and state, pending or firing, of every active alert."""
        return {
            (each["labels"]["alertname"], each["labels"].get("job", ""), each["state"])
            for each in self._ask("alerts")["alerts"]
        }

    def firing(self) -> set[tuple[str, str]]:
        return {(name, job) for name, job, state in self.alerts() if state == "firing"}

    def _ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/{what}", timeout=10) as answer:
            return json.load(answer)["data"]
