"""`make test-image`: the image is built and run as an engine would, against a real Apache Kafka.

It is built on a base made here, has what its configuration promises, runs as user 65532 with files that can't be
written, is ready within 4 s on every level of x86-64 that this machine has without compiling, gives the same forecasts
on each, stops when it is told to, and the audit finds nothing. A line is printed for each thing seen.
"""

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from confluent_kafka import Producer
from numba.core.codegen import get_host_cpu_features

from deploy.compose.producer import Pumps
from deploy.kafka.local_kafka import LocalKafka, free_ports
from streamlstm.kernels.cpu_level import LEVELS, highest_level
from tests.daemon_process import create_topics, read_all
from tests.image.built import CHECKOUT, FOLDER, Image, Specification, build
from tests.image.emulated import CPUS, forecast

MODEL = CHECKOUT / "deploy" / "compose" / "model.safetensors"
LARGEST_MB, READY_SECONDS, STARTS = 450, 4.0, 3
PARTITIONS, PUMPS, SECONDS, FIRST_SECOND = 4, 50, 60, 1_760_000_000
USER = "65532:65532"


def main() -> None:
    image = build()
    try:
        check_contents(image)
        check_configuration(image)
        check_refusals(image)
        check_other_cpus(image)
        with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker") as kafka:
            put_events(kafka.bootstrap)
            answers = {level: check_level(image, kafka.bootstrap, level) for level in (None, *levels())}
        first, *others = answers.values()
        require(all(other == first for other in others), "the levels don't give the same forecasts")
        say(f"the same {len(first)} forecasts, byte for byte, of {', '.join(level or 'the CPU' for level in answers)}")
    finally:
        image.close()


def say(line: str) -> None:
    print(f"ok  {line}", flush=True)


def require(condition: bool, problem: str) -> None:
    if not condition:
        sys.exit(f"FAIL  {problem}")


def levels() -> list[str]:
    """Those that this machine can run, the lowest first."""
    has = [feature[1:] for feature in get_host_cpu_features().split(",") if feature.startswith("+")]
    names = list(LEVELS)
    highest = highest_level(has)
    require(highest in names, f"this machine is below {names[0]}")
    return names[: names.index(highest) + 1]


# ------------------------------------------------------------------------------------------------------- what is in it


def check_contents(image: Image) -> None:
    sizes = {
        path: sum(file.lstat().st_size for file in (image.root / path).rglob("*") if not file.is_symlink())
        for path in ("", "opt/streamlstm/lib", "opt/streamlstm/kernels")
    }
    total, packages, kernels = (size / 1e6 for size in sizes.values())
    require(total < LARGEST_MB, f"{total:.0f} MB; expected below {LARGEST_MB}")
    say(f"{total:.0f} MB in all, of them {packages:.0f} packages and {kernels:.1f} kernels")
    packages_in = image.root / "opt/streamlstm/lib"
    unwanted = [name for name in ("pip", "matplotlib", "pyarrow") if list(packages_in.glob(f"*/site-packages/{name}"))]
    unwanted += [path for path in ("root/.cache", "build", "pip") if (image.root / path).exists()]
    require(not unwanted, f"not wanted: {', '.join(unwanted)}")
    sources = list(packages_in.glob("*/site-packages/streamlstm/**/*.py"))
    lacking = [path for path in sources if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))]
    require(bool(sources) and not lacking, f"no bytecode of {lacking}")
    say(f"no pip, its cache, or what only training needs; bytecode of {len(sources)} modules")
    writeable = [
        path for path in (image.root / "opt").rglob("*")
        if not path.is_symlink() and (path.stat().st_uid or path.stat().st_mode & 0o022)
    ]  # fmt: skip
    require(not writeable, f"others than root could write {writeable[:3]}")


def check_configuration(image: Image) -> None:
    expected = {
        "User": USER,
        "Entrypoint": ["streamlstm"],
        "Cmd": ["run", "-c", "/etc/streamlstm/streamlstm.toml"],
        "WorkingDir": "/etc/streamlstm",
    }
    found = {name: image.config.get(name) for name in expected}
    require(found == expected, f"configuration: found {found}, expected {expected}")
    health = image.config.get("Healthcheck")
    require(isinstance(health, dict) and health["Test"] == ["CMD", "streamlstm", "health"], f"health check: {health}")
    labels = image.config.get("Labels")
    require(isinstance(labels, dict), "no labels")
    named = [name for name in labels if name.startswith("org.opencontainers.image.") and labels[name]]
    say(f"user {USER}, exec-form entrypoint, health check, labels {', '.join(n.rpartition('.')[2] for n in named)}")


def check_refusals(image: Image) -> None:
    """The promises of the container that the rest relies on, and an engine's answers without a model."""
    tries = "import os\nprint(os.getpid(), os.getuid())\nfor f in ('/etc/x', '/opt/streamlstm/kernels/x', '/tmp/x'):\n"
    tries += " try: open(f, 'w'); print(f)\n except OSError as error: print(error.strerror)\n"
    asked = Specification(image, ["-c", tries], entrypoint=["python3"])
    seen = subprocess.run(asked.command("tries"), capture_output=True, text=True, check=False)
    read_only = "Read-only file system"
    require(seen.stdout.splitlines() == ["1 65532", read_only, read_only, "/tmp/x"], f"{seen.stdout}{seen.stderr}")
    say("process 1 is user 65532; nothing but /tmp can be written")
    lacking = subprocess.run(Specification(image).command("lacking"), capture_output=True, text=True, check=False)
    require(lacking.returncode == 66 and "model.safetensors" in lacking.stderr, f"without a model: {lacking}")
    say("without a model: exit 66 and its name")


def check_other_cpus(image: Image) -> None:
    """CPUs of a lower level get kernels that they can run, without a word from anyone."""
    pumps, history = Pumps(10, seed=2), FOLDER / "history.csv"
    rows = (
        f"{name},{1000 * second},{value:.3f}\n"
        for second in range(FIRST_SECOND, FIRST_SECOND + SECONDS)
        for name, value in zip(pumps.names, pumps.read(second), strict=True)
    )
    history.write_text("stream,ts,value\n" + "".join(rows))
    here, _ = forecast(image, MODEL, history)
    lines = here.count(b"\n")
    require(lines == 10 * SECONDS, f"forecast: {lines} lines, expected {10 * SECONDS}")
    for cpu, level in CPUS.items():
        there, said = forecast(image, MODEL, history, cpu)
        require(said.startswith(f"{level} ") and ", 0 compiled" in said and " 0 loaded" not in said, f"{cpu}: {said}")
        require(there == here, f"{cpu}: other forecasts than here")
        say(f"a {cpu} (QEMU): {said.partition(' ')[0]}, {said.rpartition('; ')[2]}; the same forecasts as here")


# -------------------------------------------------------------------------------------------------------------- running


def put_events(bootstrap: str) -> None:
    create_topics(bootstrap, ["events"], PARTITIONS)
    pumps, producer = Pumps(PUMPS, seed=2), Producer({"bootstrap.servers": bootstrap})
    for second in range(FIRST_SECOND, FIRST_SECOND + SECONDS):
        for name, value in zip(pumps.names, pumps.read(second), strict=True):
            event = f'{{"ts":{1000 * second},"value":{value:.3f}}}'
            producer.produce("events", event, name, timestamp=1000 * second)
    require(producer.flush(60) == 0, "events: the broker hasn't taken them all")


def check_level(image: Image, bootstrap: str, level: str | None) -> list[tuple[bytes, bytes]]:
    """Run the daemon for one level, or as it comes; its forecasts as (key, value), sorted."""
    name = level or "unforced"
    (port,) = free_ports(1)
    written = {section: f"{section}-{name}" for section in ("output", "dead_letter", "snapshot")}
    environment = {
        "STREAMLSTM_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "STREAMLSTM_KAFKA__GROUP_ID": name,
        "STREAMLSTM_METRICS__PORT": str(port),
        **{f"STREAMLSTM_{section.upper()}__TOPIC": topic for section, topic in written.items()},
        **({"NUMBA_CPU_NAME": level} if level else {}),
    }
    volumes = {"/etc/streamlstm/model.safetensors": MODEL}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = Specification(image, list(arguments), environment=environment, volumes=volumes).command("call")
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    made = call("check", "--create-topics")
    require(made.returncode == 0, f"check: {made.stdout}{made.stderr}")
    daemon = Specification(image, environment=environment, volumes=volumes)
    starts = []
    for number in itertools.count(1):
        with running(daemon, port, f"daemon-{name}") as started:
            starts.append(started.seconds)
            if number == 1:  # a later one finds everything answered
                wait_for_forecasts(port)
            if min(starts) >= READY_SECONDS and number < STARTS:
                continue  # another one's work was in the way, perhaps
            require(call("health").returncode == 0, "health: not 0 beside a live daemon")
        break
    require(call("health").returncode == 75, "health: not 75 without a daemon")
    took = ", ".join(f"{seconds:.2f}" for seconds in starts)
    require(min(starts) < READY_SECONDS, f"{name}: ready after {took} s; expected below {READY_SECONDS}")
    loaded = require_only_loaded(FOLDER / f"daemon-{name}.log", level or levels()[-1])
    audit = call("audit")
    require(audit.returncode == 0, f"audit: exit {audit.returncode}: {audit.stdout}{audit.stderr}")
    say(f"{name}: ready after {took} s, {loaded} kernels loaded, none compiled; SIGTERM: exit 0; audit clean")
    forecasts = [(m.key(), m.value()) for m in read_all(bootstrap, written["output"], PARTITIONS)]
    require(len(forecasts) == PUMPS * SECONDS, f"{name}: {len(forecasts)} forecasts of {PUMPS * SECONDS} events")
    return sorted(forecasts)


class Started:
    """A daemon that is ready; `seconds` from the start of its process until then."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


@contextmanager
def running(daemon: Specification, port: int, name: str) -> Iterator[Started]:
    """Yields when /readyz says so; SIGTERM to the container's process 1 afterwards, which has to end with 0."""
    log = FOLDER / f"{name}.log"
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(daemon.command(name), stdout=output, stderr=subprocess.STDOUT)
    try:
        while page(port, "/readyz") is None:
            require(process.poll() is None, f"{name}: ended with {process.returncode}: {log.read_text()[-3000:]}")
            require(time.monotonic() - began < 300, f"{name}: not ready after 300 s: {log.read_text()[-3000:]}")
            time.sleep(0.02)
        yield Started(time.monotonic() - began)
        os.kill(child_of(process.pid), signal.SIGTERM)
        require(process.wait(60) == 0, f"{name}: SIGTERM: exit {process.returncode}: {log.read_text()[-3000:]}")
    finally:
        with suppress(OSError, IndexError):  # gone, as it should be
            os.kill(child_of(process.pid), signal.SIGKILL)
        process.kill()
        process.wait()


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def page(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return str(answer.read().decode())
    except (OSError, HTTPException):
        return None


def wait_for_forecasts(port: int) -> None:
    deadline, wanted = time.monotonic() + 120, PUMPS * SECONDS
    while True:
        by_status = re.findall(r"^streamlstm_forecasts_total\{.*\} (\S+)$", page(port, "/metrics") or "", re.MULTILINE)
        found = sum(map(float, by_status))
        if found >= wanted:
            return
        require(time.monotonic() < deadline, f"{found:.0f} forecasts after 120 s; expected {wanted}")
        time.sleep(0.1)


def require_only_loaded(log: Path, level: str) -> int:
    """The log's own word that nothing was compiled, for the level that was to be used; how many kernels there were."""
    line = next((line for line in log.read_text().splitlines() if "msg=kernels" in line), "")
    found = re.search(r"(\d+) loaded, (\d+) compiled, (\d+) stored", line)
    require(found is not None and f"cpu={level} " in line, f"{log}: kernels for {level}: {line or 'no such line'}")
    assert found is not None
    require(int(found[1]) > 0 and int(found[2]) == 0, f"{log}: {line}")
    return int(found[1])


if __name__ == "__main__":
    main()
