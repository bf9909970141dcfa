"""Every alert, made to fire by its fault, and a calm run in which none does: `make test-monitoring`.

    python -m tests.monitoring.run [--calm-minutes 10] [--factor 20] [--only drifting,full] [--folder build/monitoring]

A real Prometheus scrapes real daemons on a real broker each second, with the rules of deploy/prometheus whose windows
and waiting times, and nothing else, are shorter by the factor: a calm run of 10 minutes is one of more than 3 hours.
Ends with 0 only if promtool has nothing to say, no alert fires in the calm run, and each fires in its fault.
"""

import argparse
import re
import shutil
import statistics
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from deploy.kafka.local_kafka import LocalKafka
from tests.monitoring.faults import SIDE_BY_SIDE, Script, Stage, Struck, together
from tests.monitoring.fleet import Replica
from tests.monitoring.models import write_models
from tests.monitoring.prometheus import HERE, RULES, Prometheus, promtool, require_prometheus
from tests.transport.fault_proxy import FaultProxy

MOST_SERIES = 3_000
SCRAPES = 30
SETTLING_SECONDS = 20.0
ALERT = re.compile(r"^ +- alert: (\w+)$", re.MULTILINE)


def main() -> int:
    given = _arguments()
    require_prometheus()
    promtool("check", "rules", *RULES)
    promtool("check", "config", HERE / "prometheus.yml")
    promtool("test", "rules", *sorted((HERE / "tests").glob("*.yml")))
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    with ExitStack() as stack:
        broker = stack.enter_context(LocalKafka(given.folder / "kafka", light=True))
        proxy = stack.enter_context(FaultProxy(broker.proxy_port, broker.proxied_port))
        prometheus = stack.enter_context(Prometheus(given.folder / "prometheus", given.factor))
        stage = Stage(prometheus, broker, proxy, given.folder, write_models(given.folder))
        failures = _calm(stage, 60 * given.calm_minutes) if given.calm_minutes else []
        fired: dict[str, tuple[str, float]] = {}
        for scripts in SIDE_BY_SIDE:
            chosen = tuple(each for each in scripts if not given.only or each.__name__ in given.only)
            if chosen:
                failures += _strike(stage, chosen, fired)
    if not given.only:
        failures += [f"{name}: no fault makes it fire" for name in sorted(_names() - fired.keys())]
    _show(fired, given.factor)
    print(*(f"FAILED: {each}" for each in failures), sep="\n")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calm-minutes", type=float, default=10.0)
    parser.add_argument("--factor", type=float, default=20.0, help="by which windows and waiting times are shorter")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="faults, by the functions' names")
    parser.add_argument("--folder", type=Path, default=Path("build/monitoring"))
    given = parser.parse_args()
    given.folder = given.folder.resolve()
    return given


def _names() -> set[str]:
    return {name for path in RULES for name in ALERT.findall(path.read_text())}


def _calm(stage: Stage, seconds: float) -> list[str]:
    """Two replicas at work; returns what has fired all the same."""
    with stage.fleet("calm", partitions=64).running() as fleet:
        first = fleet.replica("a").start().wait_ready()
        fleet.feed()
        time.sleep(SETTLING_SECONDS)
        failures = _measure(first)
        fleet.replica("b").start().wait_ready()
        until, fired = time.monotonic() + seconds, set[tuple[str, str]]()
        while time.monotonic() < until:
            new = stage.prometheus.firing() - fired
            for name, job in sorted(new):
                told = stage.prometheus.query(f'ALERTS{{alertname="{name}"}}')
                failures.append(
                    f"{name} of {job} fired after {seconds + time.monotonic() - until:.0f} s of calm: {told}"
                )
            fired |= new
            time.sleep(1)
        events = stage.prometheus.query(f'sum(streamlstm_events_total{{job="{fleet.job}"}})')[0]["value"][1]
        print(f"calm: {seconds:.0f} s, {events} events, {len(fired)} alerts fired")
    return failures


def _measure(replica: Replica) -> list[str]:
    """Of a page with 64 partitions: what promtool says of it, how many series it has, and how long it takes."""
    page = replica.page("/metrics")
    promtool("check", "metrics", given=page.encode())
    series = sum(not line.startswith("#") for line in page.splitlines())
    took = []
    for _ in range(SCRAPES):
        start = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{replica.port}/metrics", timeout=5) as answer:
            answer.read()
        took.append(1000 * (time.perf_counter() - start))
        time.sleep(0.1)
    print(
        f"/metrics of 64 partitions: {series} series, {len(page)} bytes; a scrape takes "
        f"{statistics.median(took):.1f} ms (median of {SCRAPES}; least {min(took):.1f}, most {max(took):.1f})"
    )
    return [f"{series} series with 64 partitions; expected fewer than {MOST_SERIES}"] if series >= MOST_SERIES else []


def _strike(stage: Stage, scripts: tuple[Script, ...], fired: dict[str, tuple[str, float]]) -> list[str]:
    """Do the faults of a group and wait for their alerts; returns those that haven't fired in time."""
    failures = []
    with together(stage, scripts) as faults:
        waiting = {(name, fault.job): fault for fault in faults for name in fault.alerts}
        while waiting:
            firing = stage.prometheus.firing()
            for key, fault in tuple(waiting.items()):
                took = time.monotonic() - fault.at
                if key in firing:
                    fired[key[0]] = fault.fault, took
                    print(f"{key[0]}: {took:.0f} s after: {fault.fault}", flush=True)
                elif took > fault.seconds:
                    failures.append(f"{key[0]} not {fault.seconds:.0f} s after: {fault.fault}")
                    print(failures[-1], flush=True)
                else:
                    continue
                del waiting[key]
            for fault in faults:
                fault.again()
            time.sleep(0.3)
        _tell_others(stage, faults)
    return failures


def _tell_others(stage: Stage, faults: list[Struck]) -> None:
    """What else a fault makes fire: an operator sees that too."""
    for fault in faults:
        others = sorted(
            name for name, job in stage.prometheus.firing() if job == fault.job and name not in fault.alerts
        )
        if others:
            print(f"  beside, {fault.fault}: {', '.join(others)}", flush=True)


def _show(fired: dict[str, tuple[str, float]], factor: float) -> None:
    print(f"\nWindows and waiting times {factor:g} times shorter than in deploy/prometheus/rules:\n")
    print("| alert | fault | fires after |\n|---|---|---|")
    for name, (fault, seconds) in sorted(fired.items()):
        print(f"| {name} | {fault} | {seconds:.0f} s |")
    print()


if __name__ == "__main__":
    sys.exit(main())
