"""One real Apache Kafka broker (KRaft, one JVM) in a folder, for the tests, the demo and the benchmarks.

    python deploy/kafka/local_kafka.py setup
    python deploy/kafka/local_kafka.py start --folder F      prints the bootstrap address, returns when the broker is up
    python deploy/kafka/local_kafka.py stop  --folder F

The jars come from Maven Central once (pom.xml) and stay in `.kafka/` of the checkout. A broker keeps its ports and its
log between stop and start of the same folder. Beside the plain listener there is a second one whose advertised port is
left to a proxy: a client that bootstraps from `proxy_port` reaches the broker only through what listens there.
"""

import argparse
import atexit
import base64
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

VERSION = "4.1.1"
HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".kafka"
LIBS = CACHE / f"libs-{VERSION}"
PACKAGES = {"java": "openjdk-17-jre-headless", "mvn": "maven"}
READY = "Kafka Server started"
START_SECONDS = 60.0
STOP_SECONDS = 20.0

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxied},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxy}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=8388608
"""

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


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _read_properties(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class LocalKafka:
    """A broker that lives in `folder`.

    `transaction_version`: 2 is what Kafka 4 formats by default (KIP-890 part 2); 0 or 1 makes clients speak the old
    transaction protocol. `properties` are added to the broker's own. `extra_listeners` maps the name of one more
    listener to its security protocol; its port is in `listener_ports`. `owned`: the broker dies with this process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        transaction_version: int | None = None,
        properties: Mapping[str, str] | None = None,
        extra_listeners: Mapping[str, str] | None = None,
        heap: str = "512m",
        owned: bool = True,
    ) -> None:
        self.folder = folder.resolve()
        self.transaction_version = transaction_version
        self.properties = dict(properties or {})
        self.extra_listeners = dict(extra_listeners or {})
        self.heap = heap
        self.owned = owned
        self.process: subprocess.Popen[bytes] | None = None
        self.listener_ports: dict[str, int] = {}
        self._config = self.folder / "server.properties"

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.listener_ports['PLAINTEXT']}"

    @property
    def proxied_port(self) -> int:
        """Where the broker listens for a proxy."""
        return self.listener_ports["PROXIED"]

    @property
    def proxy_port(self) -> int:
        """Where a proxy has to listen: the port the broker advertises for the proxied listener."""
        return self.listener_ports["PROXY"]

    def start(self) -> str:
        """Format the folder if it is new, start, wait until the broker serves; returns the bootstrap address."""
        libs = setup()
        self.folder.mkdir(parents=True, exist_ok=True)
        new = not self._config.exists()
        if new:
            self._write_config()
        self._read_ports()
        if new:
            self._format(libs)
        self._launch(libs)
        return self.bootstrap

    def stop(self) -> None:
        """Clean stop (SIGTERM), and a kill when that takes too long."""
        pid = self._pid()
        if pid is not None:
            self._signal(pid, signal.SIGTERM)
            if not self._wait_gone(pid, STOP_SECONDS):
                self.kill()
        (self.folder / "pid").unlink(missing_ok=True)

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        pid = self._pid()
        if pid is not None:
            self._signal(pid, signal.SIGKILL)
            self._wait_gone(pid, STOP_SECONDS)
        (self.folder / "pid").unlink(missing_ok=True)

    def __enter__(self) -> "LocalKafka":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_config(self) -> None:
        plain, proxied, proxy, controller, *rest = free_ports(4 + len(self.extra_listeners))
        text = PROPERTIES.format(plain=plain, proxied=proxied, proxy=proxy, controller=controller, folder=self.folder)
        for (name, protocol), port in zip(self.extra_listeners.items(), rest, strict=True):
            address = f"{name}://127.0.0.1:{port}"
            text = text.replace("listeners=PLAINTEXT", f"listeners={address},PLAINTEXT")
            text = text.replace("protocol.map=", f"protocol.map={name}:{protocol},")
        (self.folder / "log4j2.xml").write_text(LOG4J.replace("{{", "{").replace("}}", "}"))
        self._config.write_text(text + "".join(f"{key}={value}\n" for key, value in self.properties.items()))

    def _read_ports(self) -> None:
        config = _read_properties(self._config)

        def ports(key: str) -> dict[str, int]:
            pairs = (entry.split("://") for entry in config[key].split(","))
            return {name: int(address.rpartition(":")[2]) for name, address in pairs}

        self.listener_ports = ports("listeners") | {"PROXY": ports("advertised.listeners")["PROXIED"]}

    def _java(self, libs: Path, *arguments: str) -> list[str]:
        options = ["-Xms128m", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
        options.append(f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}")
        return ["java", *options, "-cp", f"{libs}/*", *arguments]

    def _format(self, libs: Path) -> None:
        cluster = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        arguments = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._config)]
        if self.transaction_version is not None:
            arguments += ["--feature", f"transaction.version={self.transaction_version}"]
        done = subprocess.run(self._java(libs, *arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            self._config.unlink()
            raise KafkaUnavailableError(f"formatting {self.folder} failed: {done.stdout}{done.stderr}")

    def _launch(self, libs: Path) -> None:
        log_path = self.folder / "broker.log"
        with log_path.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [*_die_with_parent(self.owned), *self._java(libs, "kafka.Kafka", str(self._config))],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self.process.pid))
        if self.owned:
            atexit.register(self.kill)
        deadline = time.monotonic() + START_SECONDS
        while True:
            text = log_path.read_bytes()[begin:].decode(errors="replace")
            if READY in text:
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise KafkaUnavailableError(f"Apache Kafka did not start; the end of {log_path}:\n{text[-3000:]}")
            time.sleep(0.05)

    def _pid(self) -> int | None:
        path = self.folder / "pid"
        return int(path.read_text()) if path.exists() else None

    def _signal(self, pid: int, number: signal.Signals) -> None:
        if _is_broker(pid):
            os.kill(pid, number)

    def _wait_gone(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is not None and self.process.pid == pid:
                if self.process.poll() is not None:
                    return True
            elif not _is_broker(pid):
                return True
            time.sleep(0.02)
        return False


def _is_broker(pid: int) -> bool:
    try:
        return b"kafka.Kafka" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _die_with_parent(owned: bool) -> list[str]:
    """A command prefix (util-linux) that has the kernel kill the broker when its parent dies, kill -9 included."""
    return ["setpriv", "--pdeathsig", "KILL"] if owned and shutil.which("setpriv") else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["setup", "start", "stop"])
    parser.add_argument("--folder", type=Path, default=CACHE / "broker", help="where the broker lives (%(default)s)")
    parser.add_argument("--transaction-version", type=int, choices=[0, 1, 2], help="finalized transaction.version")
    arguments = parser.parse_args()
    broker = LocalKafka(arguments.folder, transaction_version=arguments.transaction_version, owned=False)
    try:
        if arguments.command == "setup":
            setup()
        elif arguments.command == "start":
            print(broker.start())
        else:
            broker.stop()
    except (KafkaUnavailableError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
