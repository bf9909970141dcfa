"""Real Apache Kafka (KRaft) in a folder, for the tests, the demo and the benchmarks: one broker, or several.

    python deploy/kafka/local_kafka.py setup
    python deploy/kafka/local_kafka.py start --folder F [--brokers 3]    prints the bootstrap address when all are up
    python deploy/kafka/local_kafka.py stop  --folder F [--brokers 3]

The jars come from Maven Central once (pom.xml) and stay in `.kafka/` of the checkout. A broker keeps its ports and its
log between stop and start of the same folder. Beside the plain listener there is a second one whose advertised port is
left to a proxy: a client that bootstraps from `proxy_port` reaches the broker only through what listens there.

Each broker is one JVM and a controller too. With three, everything has three replicas, two of which must have what is
acknowledged, so that any one of the brokers may be killed.
"""

import argparse
import atexit
import base64
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "4.1.1"
HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".kafka"
LIBS = CACHE / f"libs-{VERSION}"
PACKAGES = {"java": "openjdk-17-jre-headless", "mvn": "maven"}
READY = "Kafka Server started"
START_SECONDS = 120.0
STOP_SECONDS = 20.0
SERVER_PORTS = range(16_384, 32_768)
_promised: list[int] = []

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxied},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxy}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={enough}
offsets.topic.num.partitions=2
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={enough}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={enough}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=1000
"""

SEVERAL = """\
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=4000
replica.fetch.wait.max.ms=100
controlled.shutdown.retry.backoff.ms=500
log.cleaner.threads=1
"""
"""A broker that was killed is missed soon; three of them are light."""

LOG4J = """\
<Configuration status="error">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT"><PatternLayout pattern="%d %p %c{{1}} %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="out"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="info"/>
    <Logger name="kafka.server.BrokerServer" level="info"/>
  </Loggers>
</Configuration>
"""


class KafkaUnavailableError(Exception):
    """The broker can't be installed or started here; the message says what to do."""


def require_programs() -> None:
    """Java and Maven on the PATH: installed when we are root on a Debian, else the one command that does it."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=sys.stderr)
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
        return
    raise KafkaUnavailableError(f"Apache Kafka needs {' and '.join(missing)}; install with: sudo {' '.join(command)}")


def setup() -> Path:
    """The folder with the broker's jars; fetched by the first caller, others wait for it."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        require_programs()
        if not LIBS.is_dir():
            part = CACHE / f"part-{VERSION}"
            shutil.rmtree(part, ignore_errors=True)
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={part}", "-DincludeScope=runtime"]
            command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), *goal]
            if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
                raise KafkaUnavailableError(
                    f"Maven could not fetch Apache Kafka {VERSION}; its command: {' '.join(command)}"
                )
            part.rename(LIBS)
    return LIBS


def _promise(port: int) -> int:
    """The descriptor of a name in Linux' abstract namespace (unix(7)): the kernel keeps it until this process ends, and
    nothing stays behind. Raises OSError where another process holds it.
    """
    with socket.socket(socket.AF_UNIX) as name:
        name.bind(f"\0streamlstm-port-{port}")
        return name.detach()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on and that no other process was given by this function, as long as this one lives.
    They lie below those that the system gives to outgoing connections (ip(7), ip_local_port_range): one of those could
    be taken while who is to listen on it isn't there yet, or restarts.
    """
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.SystemRandom().sample(SERVER_PORTS, len(SERVER_PORTS)):
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                _promised.append(_promise(port))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"{count} free ports: found {len(found)} within {SERVER_PORTS}")


def _read_properties(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@dataclass(slots=True)
class _Node:
    """One JVM, broker and controller, that lives in `folder`."""

    number: int
    folder: Path
    heap: str
    light: bool
    owned: bool
    process: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)
    log_begin: int = 0

    @property
    def config(self) -> Path:
        return self.folder / "server.properties"

    def read_ports(self) -> None:
        config = _read_properties(self.config)

        def ports(key: str) -> dict[str, int]:
            pairs = (entry.split("://") for entry in config[key].split(","))
            return {name: int(address.rpartition(":")[2]) for name, address in pairs}

        self.ports = ports("listeners") | {"PROXY": ports("advertised.listeners")["PROXIED"]}

    def java(self, libs: Path, *arguments: str) -> list[str]:
        options = ["-Xms64m", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
        options += ["-XX:TieredStopAtLevel=1"] if self.light else []
        options.append(f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}")
        return ["java", *options, "-cp", f"{libs}/*", *arguments]

    def launch(self, libs: Path) -> None:
        if self.running():
            raise KafkaUnavailableError(f"the broker in {self.folder} is running already")
        with self._log.open("ab") as log:
            self.log_begin = log.tell()
            self.process = subprocess.Popen(
                [*(die_with_parent() if self.owned else []), *self.java(libs, "kafka.Kafka", str(self.config))],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self.process.pid))
        if self.owned:
            atexit.register(self.kill)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            text = self._log.read_bytes()[self.log_begin :].decode(errors="replace")
            if READY in text:
                return
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise KafkaUnavailableError(f"Apache Kafka did not start; the end of {self._log}:\n{text[-3000:]}")
            time.sleep(0.05)

    def running(self) -> bool:
        return self._pid() is not None

    def terminate(self) -> None:
        """Ask for a clean stop."""
        self._signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Until it is gone; killed when that takes too long."""
        if not self._wait_gone(STOP_SECONDS):
            self.kill()
        (self.folder / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        self._signal(signal.SIGKILL)
        self._wait_gone(STOP_SECONDS)
        (self.folder / "pid").unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    def _pid(self) -> int | None:
        """Of the running broker."""
        path = self.folder / "pid"
        pid = int(path.read_text()) if path.exists() else None
        return pid if pid is not None and _is_broker(pid) else None

    def _signal(self, number: signal.Signals) -> None:
        pid = self._pid()
        if pid is not None:
            os.kill(pid, number)

    def _wait_gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.running() and (self.process is None or self.process.poll() is not None):
                return True
            time.sleep(0.02)
        return False


class LocalKafka:
    """Brokers that live in `folder`, numbered from 1 as their node ids are.

    `transaction_version`: 2 is what Kafka 4 formats by default (KIP-890 part 2); 0 or 1 makes clients speak the old
    transaction protocol. `properties` are added to each broker's own. `extra_listeners` maps the names of more
    listeners to their security protocols; their ports are in `listener_ports`. `heap` is each JVM's (default 512m, of
    several 320m). `light`: JVMs that compile less start in half the time and serve more slowly (default: when there are
    several). `owned`: the brokers die with the thread that starts them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        brokers: int = 1,
        transaction_version: int | None = None,
        properties: Mapping[str, str] | None = None,
        extra_listeners: Mapping[str, str] | None = None,
        heap: str | None = None,
        light: bool | None = None,
        owned: bool = True,
    ) -> None:
        self.folder = folder.resolve()
        self.transaction_version = transaction_version
        self.properties = dict(properties or {})
        self.extra_listeners = dict(extra_listeners or {})
        heap = heap or ("512m" if brokers == 1 else "320m")
        light = brokers > 1 if light is None else light
        folders = [self.folder] if brokers == 1 else [self.folder / f"broker-{n}" for n in range(1, brokers + 1)]
        self._nodes = {n: _Node(n, each, heap, light, owned) for n, each in enumerate(folders, 1)}

    @property
    def bootstrap(self) -> str:
        """The plain addresses of all brokers, separated by commas."""
        return ",".join(f"127.0.0.1:{node.ports['PLAINTEXT']}" for node in self._nodes.values())

    @property
    def listener_ports(self) -> dict[str, int]:
        """The first broker's ports by listener."""
        return self._nodes[1].ports

    @property
    def proxied_port(self) -> int:
        """Where the first broker listens for a proxy."""
        return self.listener_ports["PROXIED"]

    @property
    def proxy_port(self) -> int:
        """Where a proxy has to listen: the port the first broker advertises for the proxied listener."""
        return self.listener_ports["PROXY"]

    def start(self, broker: int | None = None) -> str:
        """Format a new folder, start all brokers or one, wait until they serve; returns the bootstrap address."""
        libs = setup()
        new = not all(node.config.exists() for node in self._nodes.values())
        if new:
            self._write_configs()
        for node in self._nodes.values():
            node.read_ports()
        if new:
            self._format(libs)
        for node in self._chosen(broker):
            node.launch(libs)
        for node in self._chosen(broker):
            node.wait_ready()
        return self.bootstrap

    def stop(self, broker: int | None = None) -> None:
        """Clean stop (SIGTERM) of all brokers or one, and a kill when that takes too long."""
        for node in self._chosen(broker):
            node.terminate()
        for node in self._chosen(broker):
            node.wait_stopped()

    def kill(self, broker: int | None = None) -> None:
        """kill -9 of all brokers or one, as a power cut would."""
        for node in self._chosen(broker):
            node.kill()

    def revive(self, broker: int) -> None:
        """Start the broker if it isn't running."""
        if not self._nodes[broker].running():
            self.start(broker)

    def __enter__(self) -> "LocalKafka":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _chosen(self, broker: int | None) -> list[_Node]:
        return list(self._nodes.values()) if broker is None else [self._nodes[broker]]

    def _write_configs(self) -> None:
        count = len(self._nodes)
        ports = free_ports((4 + len(self.extra_listeners)) * count)
        controllers = ports[:count]
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(controllers, 1))
        replicas = {"replicas": min(3, count), "enough": 1 if count == 1 else 2}
        for node, controller in zip(self._nodes.values(), controllers, strict=True):
            plain, proxied, proxy, *rest = ports[count + node.number - 1 :: count]
            text = PROPERTIES.format(
                node=node.number, voters=voters, plain=plain, proxied=proxied, proxy=proxy, controller=controller,
                folder=node.folder, **replicas,
            )  # fmt: skip
            text += SEVERAL if count > 1 else ""
            for (name, protocol), port in zip(self.extra_listeners.items(), rest, strict=True):
                address = f"{name}://127.0.0.1:{port}"
                text = text.replace(",PROXIED://", f",{address},PROXIED://")
                text = text.replace("protocol.map=", f"protocol.map={name}:{protocol},")
            node.folder.mkdir(parents=True, exist_ok=True)
            (node.folder / "log4j2.xml").write_text(LOG4J.replace("{{", "{").replace("}}", "}"))
            node.config.write_text(text + "".join(f"{key}={value}\n" for key, value in self.properties.items()))

    def _format(self, libs: Path) -> None:
        cluster = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        feature: Sequence[str] = ()
        if self.transaction_version is not None:
            feature = ["--feature", f"transaction.version={self.transaction_version}"]
        for node in self._nodes.values():
            arguments = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(node.config), *feature]
            done = subprocess.run(node.java(libs, *arguments), capture_output=True, text=True, check=False)
            if done.returncode:
                node.config.unlink()
                raise KafkaUnavailableError(f"formatting {node.folder} failed: {done.stdout}{done.stderr}")


def _is_broker(pid: int) -> bool:
    try:
        return b"kafka.Kafka" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def die_with_parent() -> list[str]:
    """A command prefix (util-linux) that has the kernel kill the process when its parent dies, kill -9 included; it
    doesn't begin when its parent has died already. Nothing where setpriv is not there.

    The parent is the thread that started it, not the process.
    """
    if not shutil.which("setpriv"):
        return []
    has_parent = '[ "$PPID" = "$0" ] && exec "$@"'
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", has_parent, str(os.getpid())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["setup", "start", "stop"])
    parser.add_argument("--folder", type=Path, default=CACHE / "broker", help="where the brokers live (%(default)s)")
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=1, help="how many (%(default)s)")
    parser.add_argument("--transaction-version", type=int, choices=[0, 1, 2], help="finalized transaction.version")
    arguments = parser.parse_args()
    kafka = LocalKafka(
        arguments.folder,
        brokers=arguments.brokers,
        transaction_version=arguments.transaction_version,
        owned=False,
    )
    try:
        if arguments.command == "setup":
            setup()
        elif arguments.command == "start":
            print(kafka.start())
        else:
            kafka.stop()
    except (KafkaUnavailableError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
