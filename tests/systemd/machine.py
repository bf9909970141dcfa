"""A Debian 12 that boots its own systemd in a folder (systemd-nspawn), with the host's network."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.kafka.local_kafka import die_with_parent

ROOT = Path(__file__).absolute().parents[2]
CACHE = ROOT / ".cache" / "systemd"
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv")
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
BOOT_SECONDS, COMMAND_SECONDS = 180.0, 1_200.0
PROGRAM, HOST = "/opt/streamlstm", "host-1"


def require_tools() -> None:
    """Installed when we are root on a Debian, else the one command that does it. Raises SystemExit."""
    missing = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise SystemExit("a machine is booted by root only: sudo make test-systemd")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(f"needs {' and '.join(missing)}; on Debian: {' '.join(command)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    waiting = ["-o", "DPkg::Lock::Timeout=600"]
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=sys.stderr)
    subprocess.run([*command, *waiting], check=True, env=environment, stdout=sys.stderr)


def base() -> Path:
    """The system without the program, as a tar; made once."""
    tar = CACHE / f"{SUITE}.tar"
    if not tar.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = CACHE / "part.tar"
        part.unlink(missing_ok=True)
        include = f"--include={','.join(PACKAGES)}"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", include, SUITE, str(part)], check=True)
        part.rename(tar)
    return tar


def wheels() -> Path:
    """The package as it is in this checkout, and all that it needs, for the Python of the machine."""
    folder = CACHE / "wheels"
    for former in folder.glob("streamlstm-*.whl"):
        former.unlink()
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (package,) = map(str, folder.glob("streamlstm-*.whl"))
    platforms = [f"--platform=manylinux_2_{minor}_{platform.machine()}" for minor in (28, 27, 17)]
    options = ["--only-binary=:all:", f"--python-version={PYTHON}", *platforms, f"--find-links={folder}"]
    subprocess.run([*pip, "download", "-d", str(folder), *options, package], check=True)
    return folder


class Machine:
    """Boots when entered; when left it is stopped and its folder removed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.log = folder / "console.log"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> "Machine":
        self.root.mkdir()
        subprocess.run(["tar", "-x", "--numeric-owner", "-f", str(base()), "-C", str(self.root)], check=True)
        shutil.copytree(wheels(), self.root / "opt" / "wheels")
        try:
            self._boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            if self._leader:
                os.kill(self._leader, signal.SIGRTMIN + 4)  # systemd(1): power off
            try:
                self._nspawn.wait(60)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        shutil.rmtree(self.root)
        _remove_control_groups()

    def _boot(self) -> None:
        options = ["--quiet", "--boot", "--register=no", "--keep-unit", "--resolv-conf=off"]
        (self.root / "etc" / "hostname").write_text(f"{HOST}\n")
        with self.log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                [*die_with_parent(), "systemd-nspawn", "-D", str(self.root), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._wait("its init", lambda: self._find_leader() != 0, BOOT_SECONDS)
        self._leader = self._find_leader()
        up = ("running", "degraded")
        state = ["systemctl", "is-system-running"]
        self._wait("all units", lambda: self.run(*state, check=False).stdout.strip() in up, BOOT_SECONDS)

    def _wait(self, what: str, reached: Callable[[], bool], seconds: float) -> None:
        assert self._nspawn is not None
        deadline = time.monotonic() + seconds
        while not reached():
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the machine did not boot ({what}): {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def _find_leader(self) -> int:
        """The host's number of the machine's process 1: below ours, and 1 in a namespace of its own."""
        assert self._nspawn is not None
        parents, firsts = {}, []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            except OSError:
                continue
            pid = int(status.parent.name)
            parents[pid] = int(fields["PPid"])
            if fields.get("NSpid", "").split()[1:] == ["1"]:
                firsts.append(pid)
        for pid in firsts:
            above = pid
            while above > 1 and above != self._nspawn.pid:
                above = parents.get(above, 0)
            if above == self._nspawn.pid:
                return pid
        return 0

    def command(self, *arguments: str) -> Sequence[str]:
        """What runs `arguments` inside."""
        inside = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return [*inside, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", *arguments]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def install(self, source: Path, path: str, mode: str = "644") -> None:
        """As docs/systemd.md has it."""
        subprocess.run(["install", "-D", "-m", mode, str(source), str(self.root / path.lstrip("/"))], check=True)


def _remove_control_groups() -> None:
    """Those that systemd-nspawn made below ours and has left empty; one in use can't be removed."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=") or ("unified" if Path("/sys/fs/cgroup/unified").is_dir() else "")
        ours = Path("/sys/fs/cgroup") / name / path.lstrip("/")
        for group in (ours / "payload", ours / "supervisor"):
            for folder in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                group.rmdir()
