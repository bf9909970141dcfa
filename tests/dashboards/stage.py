"""What the dashboards look at: a real Kafka, members of a real group under load, a real Prometheus that scrapes them.

Both ways of scraping at once: the job `streamlstm` is a plain static one, the job `forecasting/streamlstm` puts on the
labels that a PodMonitor of the Prometheus operator does (namespace, pod, container).
"""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from confluent_kafka import Producer

from deploy.demo.series import Series, load_series, write_history
from deploy.kafka.local_kafka import die_with_parent, free_ports
from tests.dashboards.grafana import Prometheus

SCRAPE_SECONDS = 2
TOPIC = "events"
PARTITIONS = 4
START_SECONDS = 120.0
COPIES = 4
WARM_UP = 800
PILED_UP = WARM_UP * COPIES * 12
"""Events of the twelve series before the steady load."""
TICKS_PER_SECOND = 4
STATIC_JOB, POD_JOB = "streamlstm", "forecasting/streamlstm"
ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
GARBAGE = (b"{", b'{"value": null}', b'{"ts": 1700000000000, "value": "high"}', b'{"ts": "yesterday", "value": 1.0}')


def train(model: Path, python: str) -> None:
    """A model of the demo's series, six steps ahead, with guard and intervals; as `streamlstm train` makes it."""
    if model.exists():
        return
    model.parent.mkdir(parents=True, exist_ok=True)
    history = model.with_name("history.csv")
    write_history(load_series(), history)
    options = ["--horizon", "6", "--steps", "200", "--seed", "1"]
    command = [python, "-m", "streamlstm", "train", str(history), "-o", str(model), *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


class Load:
    """The demo's series, each as many streams, sent at a steady rate by a thread of its own until `stop`.

    Each stream's past comes first and all at once: the forecasts that follow are no longer warming up. Now and then
    there is an event that can't be read and one that is late.
    """

    def __init__(self, bootstrap: str) -> None:
        self._series = load_series()
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._garbage = cycle(GARBAGE)
        self.sent = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(60)
        self._producer.flush(30)

    def spoil(self, events: int) -> None:
        """Events that nobody can read."""
        for _ in range(events):
            self._send("broken", next(self._garbage))

    def _run(self) -> None:
        for tick in range(WARM_UP):
            self._tick(tick)
        begin, tick = time.monotonic(), WARM_UP
        while not self._ended.is_set():
            self._tick(tick)
            if tick % 5 == 0:
                self.spoil(1)
            tick += 1
            self._ended.wait(max(0.0, begin + (tick - WARM_UP) / TICKS_PER_SECOND - time.monotonic()))

    def _tick(self, tick: int) -> None:
        for one in self._series:
            for copy in range(COPIES):
                time_ms, value = _event(one, tick)
                late = 600_000 if (tick + copy) % 211 == 0 else 0
                self._send(f"{one.stream}/{copy}", _json(time_ms - late, value * (1 + copy / 10)))

    def _send(self, key: str, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(TOPIC, key=key.encode(), value=value)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)
        self.sent += 1


def _event(one: Series, tick: int) -> tuple[int, float]:
    """The tick's event: the warm-up is the end of what the model has seen, then comes what is new to it, again and
    again at later times.
    """
    first = max(0, one.n_trained - WARM_UP)
    rounds, row = divmod(tick, len(one.y) - first)
    span = int(one.ts[-1] - one.ts[first]) + int(one.ts[1] - one.ts[0])
    return int(one.ts[first + row]) + rounds * span, float(one.y[first + row])


def _json(time_ms: int, value: float) -> bytes:
    return json.dumps({"ts": time_ms, "value": value}).encode()


def require_prometheus() -> None:
    """prometheus and promtool: installed where we are root on a Debian, else the one command that does it."""
    if shutil.which("prometheus"):
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", "prometheus"]
    if os.geteuid() or not shutil.which("apt-get"):
        raise SystemExit(f"Prometheus is needed; install with: sudo {' '.join(command)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


@contextmanager
def prometheus(folder: Path, ports: list[int]) -> Iterator[Prometheus]:
    """A server that scrapes members at `ports`, and evaluates the rules that are shipped."""
    (port,) = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(_configuration(ports)))  # JSON is YAML
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*die_with_parent(), *command], stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Prometheus(port)
        _wait_answering(server, process, folder / "prometheus.log")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _configuration(ports: list[int]) -> dict[str, object]:
    targets = [f"127.0.0.1:{port}" for port in ports]
    pods = [
        {
            "targets": [target],
            "labels": {"namespace": "forecasting", "container": "streamlstm", "pod": f"streamlstm-{k}"},
        }
        for k, target in enumerate(targets)
    ]
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "5s"},
        "rule_files": [str(path) for path in sorted(RULES.glob("*.y*ml"))],
        "scrape_configs": [
            {"job_name": STATIC_JOB, "static_configs": [{"targets": targets}]},
            {"job_name": POD_JOB, "static_configs": pods},
        ],
    }


def _wait_answering(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"Prometheus ended with {process.returncode}: {log.read_text()[-2000:]}")
        if server.ready():
            return
        time.sleep(0.2)
    raise AssertionError(f"Prometheus isn't ready after {START_SECONDS:.0f} s")
