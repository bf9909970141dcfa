"""The compose file without an engine: validated by Compose's own loader, then each service's command run by hand.

    python -m tests.image.compose

What is run is what the loader makes of the file: Kafka from its jars with the settings of the environment, as its image
does it; the topic's command; ours in the built image with the volumes given; Prometheus with the file mounted. All of
it in a network of its own, where the services' names are this machine. Grafana's server can't be had from a registry of
packages; that its files are there is checked, what is in them elsewhere.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deploy.kafka.local_kafka import VERSION, setup
from tests.daemon_process import read_all
from tests.image.built import CHECKOUT, FOLDER, Image, Specification, build
from tests.image.run import child_of, page, require, say
from tests.monitoring.prometheus import require_prometheus

FILE = CHECKOUT / "deploy" / "compose" / "compose.yaml"
LOADER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
TOOLS = FOLDER / f"kafka-tools-{VERSION}"
TOPICS_SCRIPT = "/opt/kafka/bin/kafka-topics.sh"
OURS = ("check", "streamlstm", "producer")
PARTITIONS = 4
ENOUGH_SECONDS = 150  # of the demo: more than two cycles of a pump, so that forecasts can be held to what came
HANDED_OVER = FOLDER / "compose.json"

Service = dict[str, Any]


def main() -> None:
    services = load()
    check_mounts(services)
    setup()
    fetch_tools()
    require_prometheus()
    image = build()
    try:
        HANDED_OVER.write_text(
            json.dumps({"services": services, "config": image.config, "root": str(image.root), "name": image.container})
        )
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*apart, sys.executable, "-m", "tests.image.compose", "inside"]
        done = subprocess.run(command, cwd=CHECKOUT, check=False)
    finally:
        image.close()
    sys.exit(done.returncode)


def load() -> dict[str, Service]:
    """The services as Compose sees them: anchors resolved, paths absolute. Its loader refuses what the schema does."""
    if shutil.which("go") is None:
        sys.exit("the compose file is read by Compose's own loader: install Go 1.24 or later (https://go.dev/dl)")
    command = ["go", "run", LOADER, "-format=json", FILE.name]
    done = subprocess.run(command, cwd=FILE.parent, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{FILE}: {done.stderr}")
    services: dict[str, Service] = json.loads(done.stdout)["services"]
    say(f"compose file: the loader finds {', '.join(sorted(services))}")
    return services


def check_mounts(services: dict[str, Service]) -> None:
    missing = [
        f"{name}: {volume['source']}"
        for name, service in services.items()
        for volume in service.get("volumes", ())
        if volume["type"] == "bind" and not Path(volume["source"]).exists()
    ]
    require(not missing, f"mounted, and not there: {'; '.join(missing)}")
    for name in OURS:
        hardened = {each: services[name].get(each) for each in ("read_only", "cap_drop", "tmpfs")}
        require(hardened == {"read_only": True, "cap_drop": ["ALL"], "tmpfs": ["/tmp"]}, f"{name}: {hardened}")
    say("every file that is mounted is there; ours run read-only, without capabilities")


def fetch_tools() -> None:
    """The jars of Kafka's command-line tools, which the broker doesn't need."""
    if TOOLS.is_dir():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    pom, part = FOLDER / "tools.xml", FOLDER / "kafka-tools-part"
    shutil.rmtree(part, ignore_errors=True)
    broker = (CHECKOUT / "deploy" / "kafka" / "pom.xml").read_text()
    pom.write_text(broker.replace("<artifactId>kafka_2.13<", "<artifactId>kafka-tools<"))
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={part}", "-DincludeScope=runtime"]
    subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *goal], check=True)
    part.rename(TOOLS)


# -------------------------------------------------------------------------------------------------- in its own network


def inside() -> None:
    given = json.loads(HANDED_OVER.read_text())
    image, services = Image(given["config"], Path(given["root"]), given["name"]), given["services"]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {socket.gethostname()} {' '.join(services)}\n")
        subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
        start_kafka(services["kafka"], folder, stack)
        make_topic(services["events"], folder)
        checked = subprocess.run(ours(image, services["check"], hosts).command("compose-check"), check=False)
        require(checked.returncode == 0, f"check: exit {checked.returncode}")
        say("check --create-topics finds nothing that would keep the daemon from starting")
        daemon, producer = (
            stack.enter_context(started(ours(image, services[name], hosts).command(f"compose-{name}"), folder / name))
            for name in ("streamlstm", "producer")
        )
        start_prometheus(services["prometheus"], folder, stack)
        watch(folder)
        health = ours(image, services["streamlstm"], hosts, ["health"])
        require(subprocess.run(health.command("compose-health"), check=False).returncode == 0, "health: not 0")
        stop(producer, folder / "producer")
        stop(daemon, folder / "streamlstm")
        audit = ours(image, services["streamlstm"], hosts, ["audit"])
        require(subprocess.run(audit.command("compose-audit"), check=False).returncode == 0, "audit: not 0")
        say("producer and daemon end with 0 at SIGTERM; audit clean")


def ours(image: Image, service: Service, hosts: Path, arguments: Sequence[str] | None = None) -> Specification:
    """A service in the built image, as the file has it; or another command with its settings."""
    mounts = {volume["target"]: Path(volume["source"]) for volume in service.get("volumes", ())}
    given = service.get("command") if arguments is None else list(arguments)
    environment = {name: str(value) for name, value in (service.get("environment") or {}).items()}
    return Specification(image, given, service.get("entrypoint"), environment, {**mounts, "/etc/hosts": hosts})


def start_kafka(service: Service, folder: Path, stack: ExitStack) -> None:
    """The broker that the image would start: a variable KAFKA_A_B is the setting a.b, and there are no others."""
    settings = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in service["environment"].items()
        if name.startswith("KAFKA_")
    }
    require(settings.pop("log.dirs") == service["volumes"][0]["target"], "kafka: its log isn't in the volume")
    settings["log.dirs"] = str(folder / "kafka-data")
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    java = ["java", "-Xmx400m", "-cp", f"{setup()}/*"]
    cluster = service["environment"]["CLUSTER_ID"]
    subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)], check=True)
    stack.enter_context(started([*java, "kafka.Kafka", str(properties)], folder / "kafka"))


def make_topic(service: Service, folder: Path) -> None:
    """Beside a broker that is still starting, as it will be."""
    program, *arguments = service["command"]
    require(program == TOPICS_SCRIPT, f"events: {program}")
    java = ["java", "-cp", f"{TOOLS}/*", "org.apache.kafka.tools.TopicCommand"]
    for _ in range(2):  # it is made anew at each `up`
        done = subprocess.run([*java, *arguments], capture_output=True, text=True, check=False)
        broker = (folder / "kafka").read_text()[-3000:]
        require(done.returncode == 0, f"events: {done.stdout}{done.stderr}\nkafka: {broker}")
    say("kafka starts with its environment; the topic is made, and made again")


def start_prometheus(service: Service, folder: Path, stack: ExitStack) -> None:
    etc = folder / "etc"
    for volume in service["volumes"]:
        if volume["type"] == "bind":
            source, target = Path(volume["source"]), etc / Path(volume["target"]).relative_to("/etc/prometheus")
            target.parent.mkdir(exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    subprocess.run(["promtool", "check", "config", str(etc / "prometheus.yml")], check=True)
    command = ["prometheus", f"--config.file={etc}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    stack.enter_context(started([*command, "--web.listen-address=127.0.0.1:9090"], folder / "prometheus"))


def watch(folder: Path) -> None:
    """Until Prometheus has what the demo is to show: answers, and better ones than the last value repeated."""
    deadline = time.monotonic() + 2 * ENOUGH_SECONDS
    queries = {
        "up": 'up{job="streamlstm"}',
        "forecasts": "sum(streamlstm_forecasts_total)",
        "skill": 'streamlstm_skill_ratio{horizon="1"}',
        "coverage": 'streamlstm_coverage_ratio{horizon="1"}',
    }
    enough = int(os.environ.get("DEMO_STREAMS", "200")) * ENOUGH_SECONDS
    while True:
        seen = {name: query(text) for name, text in queries.items()}
        if seen["up"] == 1 and (seen["forecasts"] or 0) >= enough:
            break
        require(time.monotonic() < deadline, f"Prometheus sees {seen}; expected {enough} forecasts\n{logs(folder)}")
        time.sleep(2)
    skill = seen["skill"]
    require(skill is not None and skill < 1, f"skill ratio {skill}; expected below 1")
    say(f"Prometheus sees {seen}")
    forecasts = [json.loads(message.value()) for message in read_all("localhost:9092", "forecasts", PARTITIONS)]
    with_interval = [each for each in forecasts if each["lower"][0] is not None]
    require(len(with_interval) > len(forecasts) / 2, f"{len(with_interval)} of {len(forecasts)} have an interval")
    streams = {each["stream"] for each in forecasts}
    say(f"a reader on this machine sees {len(forecasts)} forecasts of {len(streams)} pumps")


def query(text: str) -> float | None:
    """The one value of it, None while there is none."""
    answer = page(9090, f"/api/v1/query?query={urllib.parse.quote(text)}")
    result = json.loads(answer)["data"]["result"] if answer else []
    return float(result[0]["value"][1]) if result else None


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs until the end of the block, its output in `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes], log: Path) -> None:
    """SIGTERM to the process 1 of its container."""
    require(process.poll() is None, f"{log.name}: ended with {process.returncode}: {log.read_text()[-3000:]}")
    os.kill(child_of(process.pid), signal.SIGTERM)
    require(process.wait(60) == 0, f"{log.name}: SIGTERM: exit {process.returncode}: {log.read_text()[-3000:]}")


def logs(folder: Path) -> str:
    """The ends of those that matter when nothing is seen."""
    names = ("streamlstm", "producer", "prometheus")
    return "\n".join(f"{name}: {(folder / name).read_text()[-1500:]}" for name in names)


if __name__ == "__main__":
    inside() if sys.argv[1:] == ["inside"] else main()
