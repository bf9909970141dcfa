"""Every query of both dashboards, for real: `make test-dashboards`.

A real Kafka, two members under load and a real Prometheus that scrapes them; one member joins later (a rebalance), one
is killed and comes back (a restore). Then every variable, panel and annotation is asked for as Grafana would, for a
static scrape, for one of Kubernetes, and for all at once, and must have numbers in each. `--previews` draws what was
found to docs/images.
"""

import argparse
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from deploy.grafana.build import FOLDER as DASHBOARDS
from deploy.kafka.local_kafka import LocalKafka, free_ports
from tests.daemon_process import Daemon, create_topics, daemon
from tests.dashboards.grafana import Dashboard, Prometheus, Range
from tests.dashboards.preview import draw
from tests.dashboards.schema import check_schema
from tests.dashboards.stage import (
    PARTITIONS,
    PILED_UP,
    POD_JOB,
    SCRAPE_SECONDS,
    STATIC_JOB,
    TOPIC,
    Load,
    prometheus,
    require_prometheus,
    train,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "dashboards"
IMAGES = ROOT / "docs" / "images"
READY_SECONDS = 900.0  # the first start on a machine compiles kernels, others may be at work there


@dataclass(slots=True)
class Scene:
    """The members and what they share."""

    bootstrap: str
    model: Path
    ports: list[int]

    def member(self, stack: ExitStack, number: int, topics: dict[str, object]) -> Daemon:
        settings = {
            "kafka.group_id": "forecasts", "kafka.group_instance_id": f"member-{number}",
            "metrics.port": self.ports[number],
            "state.max_streams": 1000, "snapshot.interval_ms": 20000, "log.level": "error", **topics,
        }  # fmt: skip
        member = stack.enter_context(daemon(self.bootstrap, self.model, TOPIC, PARTITIONS, settings))
        member.port = self.ports[number]
        member.wait_ready(READY_SECONDS)
        return member


def play(stack: ExitStack, bootstrap: str, ports: list[int], seconds: float) -> float:
    """The life of a small group, over about `seconds` once all of it is ready. Returns when all that had piled up
    before was answered (epoch seconds).
    """
    create_topics(bootstrap, [TOPIC], PARTITIONS)
    load = Load(bootstrap)
    load.start()
    stack.callback(load.stop)
    scene = Scene(bootstrap, FOLDER / "model.safetensors", ports)
    first = scene.member(stack, 0, {})
    first.wait_for("streamlstm_events_total", PILED_UP, READY_SECONDS)
    live = time.time()
    _told("a member is ready", seconds / 4)
    second = scene.member(stack, 1, first.topics)
    _told("another one has joined", seconds / 4)
    load.spoil(200)
    first.process.kill()
    first.process.wait()
    _told("one is killed", 5)
    scene.member(stack, 0, second.topics)
    _told("it is back", seconds / 2)
    print(f"{load.sent} events sent")
    return live


def check(path: Path, server: Prometheus, over: Range, job: str | None) -> list[str]:
    """What has no numbers; prints a line for each query."""
    dashboard = Dashboard(path, server, over, {"job": job} if job else {})
    print(f"\n{dashboard.json['title']}, job {job or 'All'}")
    missing = []
    for name, options in dashboard.options.items():
        print(f"  ${name:<44}{len(options):>5} values  {', '.join(options)[:70]}")
        expected_none = name == "cluster" or (name == "pod" and job == STATIC_JOB)  # no scrape here has such labels
        if bool(options) == expected_none:
            missing.append(f"${name}: {options}, expected {'none' if expected_none else 'some'}")
    for panel in dashboard.panels:
        for target, found in dashboard.results(panel):
            numbers = [value for series in found for value in series.finite]
            sample = f"{numbers[-1]:.6g}" if numbers else "No data"
            print(f"  {panel['title'][:42]:<42} {target['refId']} {len(found):>5} series  {sample}")
            if not numbers:
                missing.append(f"{panel['title']} {target['refId']}: no data: {target['expr']}")
    for annotation, events in dashboard.annotations():
        print(f"  annotation {annotation['name']:<34}{len(events):>5} events  {events[-1][2] if events else ''}")
        if not events:
            missing.append(f"annotation {annotation['name']}: no event: {annotation['expr']}")
    return [f"{path.name}, job {job or 'All'}: {line}" for line in missing]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the calm parts (%(default)s)")
    parser.add_argument("--previews", action="store_true", help="draw docs/images/*.png from what is found")
    parser.add_argument("--keep", action="store_true", help="wait for Enter before everything is stopped")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs beside it ends with it
    paths = sorted(DASHBOARDS.glob("*.json"))
    missing = check_schema(paths, FOLDER / "schema")
    print("\n".join(missing or ["the files are of Grafana's own types"]))
    require_prometheus()
    train(FOLDER / "model.safetensors", sys.executable)
    shutil.rmtree(FOLDER / "prometheus", ignore_errors=True)
    ports = free_ports(2)
    with ExitStack() as stack:
        server = stack.enter_context(prometheus(FOLDER / "prometheus", ports))
        shutil.rmtree(FOLDER / "kafka", ignore_errors=True)
        kafka = stack.enter_context(LocalKafka(FOLDER / "kafka", light=True))
        begin = time.time()
        live = play(stack, kafka.bootstrap, ports, arguments.seconds)
        over = Range(begin, time.time(), SCRAPE_SECONDS)
        missing += [
            line for path in paths for job in (STATIC_JOB, POD_JOB, None) for line in check(path, server, over, job)
        ]
        if arguments.previews:
            for path in paths:
                shown = Range(live, over.end, SCRAPE_SECONDS)
                draw(Dashboard(path, server, shown, {"job": POD_JOB}), IMAGES / f"dashboard-{path.stem}.png")
        if arguments.keep:
            input(f"Prometheus at {server.url}, {over}; Enter ends it\n")
    print("\n" + "\n".join(missing or ["every variable, panel and annotation has data"]))
    return 1 if missing else 0


def _told(what: str, seconds: float) -> None:
    print(f"{what}; {seconds:.0f} s", flush=True)
    time.sleep(seconds)


if __name__ == "__main__":
    sys.exit(main())
