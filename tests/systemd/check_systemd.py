"""The units of deploy/systemd in a systemd that was really booted, against a real broker: `make test-systemd`.

A Debian 12 is made in a folder and booted (machine.py), the package and the units are installed as docs/systemd.md
says, and the daemon is started, frozen, killed, reloaded and stopped under a steady load. Each line names what was
seen; the last is the audit of the whole run. Ends with 1 when anything doesn't hold, and leaves nothing behind but
`.cache/systemd` (the base system and the wheels; `make clean` removes it).
"""

import json
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from deploy.kafka.local_kafka import LocalKafka, free_ports
from tests.daemon_process import create_topics, write_model
from tests.systemd.machine import HOST, PROGRAM, ROOT, Machine, require_tools
from tests.trust.traffic import Traffic

PARTITIONS, STREAMS, RATE = 4, 2_000, 200.0
PASSWORD = "canary-in-a-credential"
UNITS = ROOT / "deploy" / "systemd"
MAX_EXPOSURE = 2.0
WATCHDOG_SECONDS = 30.0
# The machine may be slow: what is waited for comes or doesn't, and the figure is printed.
PATIENCE_SECONDS = 600.0

SETTINGS = """\
[kafka]
bootstrap_servers = ["{secure}"]
[kafka.security]
security_protocol = "SASL_PLAINTEXT"
sasl_mechanism = "PLAIN"
sasl_plain_username = "me"
[state]
max_streams = {streams}
[snapshot]
interval_ms = 5000
[metrics]
host = "127.0.0.1"
port = {port}
"""


class Checks:
    """What was found, line by line."""

    def __init__(self) -> None:
        self.failed = 0
        self._began = time.monotonic()

    def hold(self, what: str, ok: bool, figure: object) -> None:
        self.failed += not ok
        print(f"{time.monotonic() - self._began:6.0f} s  {'ok  ' if ok else 'FAIL'}  {what}: {figure}", flush=True)

    def wait(self, what: str, reached: Callable[[], object]) -> float:
        """Until it is reached, at most PATIENCE_SECONDS: the seconds it took."""
        began = time.monotonic()
        while not reached():
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise SystemExit(f"not reached within {PATIENCE_SECONDS:g} s: {what}")
            time.sleep(0.05)
        return time.monotonic() - began


class Unit:
    """One service of the machine, seen from outside."""

    def __init__(self, machine: Machine, name: str, port: int) -> None:
        self.machine = machine
        self.name = name
        self.port = port

    def control(self, verb: str) -> tuple[int, float]:
        """systemctl's exit code and the seconds it took."""
        began = time.monotonic()
        done = self.machine.run("systemctl", verb, self.name, check=False)
        return done.returncode, time.monotonic() - began

    def show(self, *names: str) -> list[str]:
        shown = self.machine.run("systemctl", "show", self.name, *(f"-p{name}" for name in names)).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines())
        return [values[name] for name in names]

    def restarts(self) -> int:
        return int(self.show("NRestarts")[0])

    def pid(self) -> int:
        return int(self.show("MainPID")[0])

    def journal(self) -> str:
        return self.machine.run("journalctl", "--no-pager", "-o", "cat", "-u", self.name).stdout

    def page(self, path: str) -> tuple[int, str]:
        """The status and the text; 0 when nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum over all labels; -1 when nobody listens."""
        status, text = self.page("/metrics")
        lines = [line for line in text.splitlines() if re.split("[{ ]", line)[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if status else -1.0

    def answers(self) -> bool:
        return self.metric("streamlstm_events_total") > 0

    def came_back(self, restarts: int) -> bool:
        return self.restarts() == restarts and self.show("ActiveState") == ["active"] and self.answers()


class Stage:
    """A machine with the package, a broker with a load, and the checks in their order."""

    def __init__(self, machine: Machine, kafka: LocalKafka, folder: Path, checks: Checks) -> None:
        self.machine = machine
        self.kafka = kafka
        self.checks = checks
        self.ports = free_ports(3)
        self.unit = Unit(machine, "streamlstm.service", self.ports[0])
        self.model = write_model(folder / "model.safetensors")
        self.traffic = Traffic(kafka.bootstrap, "events", PARTITIONS, STREAMS, RATE, 7)

    # ---------------------------------------------------------------------------------------------------- installation

    def install(self) -> None:
        machine = self.machine
        machine.run("python3", "-m", "venv", PROGRAM)
        pip = [f"{PROGRAM}/bin/pip", "install", "-q", "--no-index", "--find-links", "/opt/wheels"]
        machine.run(*pip, "streamlstm")
        for name in ("streamlstm.service", "streamlstm@.service"):
            machine.install(UNITS / name, f"/etc/systemd/system/{name}")
        machine.install(self.model, "/etc/streamlstm/model.safetensors")
        for name in ("streamlstm.service", "streamlstm@.service"):
            machine.install(UNITS / "kafka-password.conf", f"/etc/systemd/system/{name}.d/kafka-password.conf")
        machine.write("/etc/streamlstm/kafka-password", PASSWORD + "\n", 0o600)
        for name, port in zip(("streamlstm", "a", "b"), self.ports, strict=True):
            machine.write(f"/etc/streamlstm/{name}.toml", self.settings(port))
        machine.run("systemctl", "daemon-reload")
        create_topics(self.kafka.bootstrap, ["events"], PARTITIONS)
        version = machine.run("systemctl", "--version").stdout.splitlines()[0]
        self.checks.hold("booted, package and units installed", True, version)

    def settings(self, port: int) -> str:
        secure = f"127.0.0.1:{self.kafka.listener_ports['SECURE']}"
        return SETTINGS.format(secure=secure, streams=2 * STREAMS, port=port)

    def command(self, *arguments: str) -> tuple[int, str]:
        """The program in the hands of the administrator."""
        settings = ["-c", "/etc/streamlstm/streamlstm.toml", "--set", "model.path=/etc/streamlstm/model.safetensors"]
        settings += ["--set", "kafka.security.sasl_plain_password_file=/etc/streamlstm/kafka-password"]
        done = self.machine.run(f"{PROGRAM}/bin/streamlstm", *arguments, *settings, check=False)
        return done.returncode, done.stdout + done.stderr

    # ---------------------------------------------------------------------------------------------------------- checks

    def analyze(self) -> None:
        for unit in ("streamlstm.service", "streamlstm@a.service"):
            done = self.machine.run("systemd-analyze", "verify", unit, check=False)
            said = (done.stdout + done.stderr).strip()
            self.checks.hold(f"systemd-analyze verify {unit}", (done.returncode, said) == (0, ""), said or "clean")
            text = self.machine.run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
            exposure = float(re.findall(r"exposure level for \S+: ([0-9.]+)", text)[0])
            self.checks.hold(f"systemd-analyze security {unit}", exposure <= MAX_EXPOSURE, exposure)

    def refuse(self) -> None:
        """What a restart can't cure: systemctl fails, and there is no second attempt after RestartSec."""
        self.machine.write(
            "/etc/streamlstm/streamlstm.toml", self.settings(self.ports[0]) + "[comit]\ninterval_ms = 1\n"
        )
        code, _ = self.unit.control("start")
        self._stays_failed("a wrong setting", code, "78", "comit.interval_ms: unknown key")
        self.machine.write("/etc/streamlstm/streamlstm.toml", self.settings(self.ports[0]))
        self.machine.run("mv", "/etc/streamlstm/kafka-password", "/etc/streamlstm/elsewhere")
        code, _ = self.unit.control("start")
        self._stays_failed("a credential that isn't there", code, "243", "Failed to set up credentials")
        self.machine.run("mv", "/etc/streamlstm/elsewhere", "/etc/streamlstm/kafka-password")
        code, _ = self.unit.control("start")
        self._stays_failed("topics that aren't there", code, "66", "forecasts")

    def _stays_failed(self, what: str, code: int, status: str, said: str) -> None:
        time.sleep(7)
        found = self.unit.show("ActiveState", "ExecMainStatus", "NRestarts")
        ok = code != 0 and found == ["failed", status, "0"] and said in self.unit.journal()
        self.checks.hold(f"{what} is not tried again", ok, f"systemctl {code}, {' '.join(found)} restarts")
        self.machine.run("systemctl", "reset-failed", self.unit.name)

    def start(self) -> None:
        written = ["forecasts", "dead-letters"]
        create_topics(self.kafka.bootstrap, written, PARTITIONS, **{"message.timestamp.after.max.ms": str(2**63 - 1)})
        create_topics(self.kafka.bootstrap, ["snapshots"], PARTITIONS, **{"cleanup.policy": "compact"})
        code, seconds = self.unit.control("start")
        ready, _ = self.unit.page("/readyz")
        (text,) = self.unit.show("StatusText")
        said = self.machine.run("systemctl", "status", "--no-pager", self.unit.name, check=False).stdout
        ok = (code, ready) == (0, 200) and f'Status: "{text}"' in said and text == "4 of 4 partitions live"
        self.checks.hold("systemctl start", ok, f"ready after {seconds:.1f} s: {text}")
        cached = self.machine.run("find", "-L", "/var/cache/streamlstm", "-name", "*.kernel").stdout.splitlines()
        self.checks.hold("kernels in the cache directory", len(cached) > 40, f"{len(cached)} files")
        user = self.machine.run("stat", "-c", "%u", f"/proc/{self.unit.pid()}").stdout.strip()
        self.checks.hold("a user of its own", user != "0", user)
        self.traffic.start()
        self.checks.wait("events answered", self.unit.answers)

    def reload(self) -> None:
        """SIGHUP: the log level changes, and the log says what else did in the file."""
        text = self.settings(self.ports[0]) + '[log]\nlevel = "debug"\n[commit]\ninterval_ms = 50\n'
        pid = self.unit.pid()
        self.machine.write("/etc/streamlstm/streamlstm.toml", text)
        code, _ = self.unit.control("reload")
        said = (
            'msg="changed settings wait for a restart" settings=commit.interval_ms',
            "msg=reloaded changed=log.level",
        )
        seconds = self.checks.wait(
            "the reload in the journal", lambda: all(each in self.unit.journal() for each in said)
        )
        self.checks.wait("active again", lambda: self.unit.show("ActiveState") == ["active"])
        self.checks.hold(
            "systemctl reload", (code, self.unit.pid()) == (0, pid), f"in the journal after {seconds:.1f} s"
        )
        self.machine.write("/etc/streamlstm/streamlstm.toml", self.settings(self.ports[0]))
        self.unit.control("reload")

    def kill(self) -> None:
        before, pid = self.unit.restarts(), self.unit.pid()
        self.machine.run("sh", "-c", f"kill -KILL {pid}")
        seconds = self.checks.wait("back after kill -9", lambda: self.unit.came_back(before + 1))
        new = self.unit.pid()
        self.checks.hold("kill -9", new != pid, f"restarted, ready and answering after {seconds:.1f} s (RestartSec=5)")

    def restore(self) -> None:
        """Each partition takes 12 s, the time-out of the start is 40 s: it is extended while the restore gets on."""
        self._fault({"point": "restored", "from": 1, "seconds": 12.0}, "TimeoutStartSec=40s")
        self.unit.control("stop")
        self.machine.run("systemctl", "start", "--no-block", self.unit.name)
        began, seen, early = time.monotonic(), list[str](), False
        while self.unit.show("ActiveState")[0] in ("activating", "inactive"):
            early |= self.unit.page("/readyz")[0] == 200
            (text,) = self.unit.show("StatusText")
            seen += [text] if text not in seen[-1:] else []
            time.sleep(0.2)
        seconds, ready = time.monotonic() - began, self.unit.page("/readyz")[0]
        active, restarts, text = self.unit.show("ActiveState", "NRestarts", "StatusText")
        restoring = [text for text in seen if text.startswith("restoring")]
        # A partition counts until it has replayed its events, and between two stalls of 12 s there is one turn for it:
        # when the number falls is luck, that it is told isn't.
        ok = (active, restarts, ready, early) == ("active", "0", 200, False) and seconds > 48 and bool(restoring)
        ok &= text == "4 of 4 partitions live"
        told = ", ".join((*restoring, text))
        self.checks.hold("a slow restore: started when it is through", ok, f"{seconds:.1f} s; {told}")
        self._no_fault()

    def freeze(self) -> None:
        before = self.unit.restarts()
        self.machine.run("sh", "-c", f"kill -STOP {self.unit.pid()}")
        self._watchdog("SIGSTOP", before)

    def stick(self) -> None:
        """The loop's thread stands still while the others live: metrics are served, heartbeats sent."""
        self._fault({"point": "polled", "from": 50, "seconds": 3600.0})
        self.unit.control("restart")
        before = self.unit.restarts()

        def stands() -> bool:
            events = self.unit.metric("streamlstm_events_total")
            time.sleep(3)
            return 0 < events == self.unit.metric("streamlstm_events_total")

        self.checks.wait("the loop stands still", stands)
        status, _ = self.unit.page("/metrics")
        self.checks.hold("a stuck loop, the other threads alive", status == 200, f"/metrics answers {status}")
        self._no_fault(restart=False)
        self._watchdog("a stuck loop", before)
        stack = re.findall(r'File ".*member.py", line \d+ in __call__', self.unit.journal())
        self.checks.hold("the journal shows where it stood", bool(stack), stack[:1])

    def _watchdog(self, what: str, before: int) -> None:
        began = time.monotonic()
        self.checks.wait("the watchdog", lambda: self.unit.restarts() == before + 1)
        killed = time.monotonic() - began
        self.checks.wait("back after the watchdog", lambda: self.unit.came_back(before + 1))
        told = "Watchdog timeout" in self.unit.journal()
        ok = told and killed < WATCHDOG_SECONDS + 20
        back = time.monotonic() - began
        self.checks.hold(
            f"{what} meets the watchdog", ok, f"restarted after {killed:.1f} s, answering after {back:.1f} s"
        )

    def stop(self) -> None:
        events = self.unit.metric("streamlstm_events_total")
        code, seconds = self.unit.control("stop")
        result, status, active = self.unit.show("Result", "ExecMainStatus", "ActiveState")
        ok = (code, result, status, active) == (0, "success", "0", "inactive") and seconds < 60
        self.checks.hold(
            "systemctl stop under load", ok, f"exit {status} after {seconds:.1f} s, at {events:,.0f} events"
        )

    def several(self) -> None:
        """Two instances of the template, each with its settings, its name in the group and its share of partitions."""
        units = [Unit(self.machine, f"streamlstm@{name}.service", self.ports[n]) for n, name in enumerate("ab", 1)]
        for unit in units:
            code, seconds = unit.control("start")
            self.checks.hold(f"{unit.name} starts", code == 0, f"ready after {seconds:.1f} s")
        shares: list[float] = []

        def shared() -> bool:
            shares[:] = [unit.metric("streamlstm_partitions") for unit in units]
            return (
                min(shares) > 0 and sum(shares) == PARTITIONS and all(unit.page("/readyz")[0] == 200 for unit in units)
            )

        self.checks.wait("the partitions are shared", shared)
        for unit in units:
            self.checks.wait(f"{unit.name} answers", unit.answers)
        names = sorted(self._members())
        self.checks.hold("two instances side by side", names == [f"{HOST}-a", f"{HOST}-b"], f"{names} own {shares}")
        self.traffic.stop()
        self.checks.wait("no lag", lambda: sum(unit.metric("streamlstm_lag_records") for unit in units) == 0)
        for unit in units:
            code, seconds = unit.control("stop")
            ok = code == 0 and unit.show("Result") == ["success"]
            self.checks.hold(f"{unit.name} stops", ok, f"after {seconds:.1f} s")

    def _members(self) -> list[str]:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        group = admin.describe_consumer_groups(["streamlstm"])["streamlstm"].result(30)
        return [str(member.group_instance_id) for member in group.members]

    def audit(self) -> None:
        code, text = self.command("audit", "--json")
        found = json.loads(text.splitlines()[-1])
        events = sum(each["events"] + each["unreadable_batches"] for each in found["partitions"])
        ok = code == 0 and found["clean"] and events == self.traffic.sent
        self.checks.hold(
            "audit of the whole run", ok, f"exit {code}, {events:,} of {self.traffic.sent:,} events answered once"
        )
        for unit in ("streamlstm.service", "streamlstm@a.service"):
            shown = self.machine.run("systemctl", "show", unit).stdout + Unit(self.machine, unit, 0).journal()
            self.checks.hold(f"no password in {unit}'s properties and journal", PASSWORD not in shown, "none")

    # ---------------------------------------------------------------------------------------------------------- faults

    def _fault(self, fault: dict[str, object], *more: str) -> None:
        """From the next start on the program is member.py, which holds the loop up."""
        self.machine.install(ROOT / "tests" / "systemd" / "member.py", "/opt/check/member.py")
        self.machine.write("/opt/check/member.json", json.dumps(fault))
        program = f"{PROGRAM}/bin/python /opt/check/member.py run -c /etc/streamlstm/streamlstm.toml"
        lines = ["[Service]", "ExecStart=", f"ExecStart={program}", *more]
        self.machine.write("/etc/systemd/system/streamlstm.service.d/fault.conf", "\n".join(lines) + "\n")
        self.machine.run("systemctl", "daemon-reload")

    def _no_fault(self, restart: bool = True) -> None:
        self.machine.run("rm", "/etc/systemd/system/streamlstm.service.d/fault.conf", "/opt/check/member.json")
        self.machine.run("systemctl", "daemon-reload")
        if restart:
            self.unit.control("restart")
            self.checks.wait("events answered", self.unit.answers)


def main() -> int:
    require_tools()
    checks = Checks()
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_me="{PASSWORD}";'
    secure = {
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": login,
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlstm-systemd-")))
        listeners = {"SECURE": "SASL_PLAINTEXT"}
        broker = LocalKafka(folder / "kafka", properties=secure, extra_listeners=listeners, light=True)
        kafka = stack.enter_context(broker)
        machine = stack.enter_context(Machine(folder))
        stage = Stage(machine, kafka, folder, checks)
        for step in (
            stage.install, stage.analyze, stage.refuse, stage.start, stage.reload, stage.kill, stage.restore,
            stage.freeze, stage.stick, stage.stop, stage.several, stage.audit,
        ):  # fmt: skip
            try:
                step()
            except SystemExit as error:
                checks.hold(step.__name__, False, error)
                print(stage.unit.journal()[-6000:], file=sys.stderr)
                break
    checks.hold("nothing left behind", not folder.exists(), folder)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
