"""The doctor's look at this machine: facts gathered at the edge, verdicts over them without touching anything."""

import ctypes
import errno
import os
import platform
import re
import resource
import socket
import stat
import struct
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from streamlstm import __version__
from streamlstm.config import Config
from streamlstm.config.security import SECRETS
from streamlstm.errors import ConfigError, InputMissingError
from streamlstm.service.doctor_findings import Finding, bad, doubtful, good, skipped
from streamlstm.service.limits import cpu_quota, memory, memory_limit
from streamlstm.service.sizing import Sizing
from streamlstm.service.wiring import thread_count

HUGE_PAGES_FILE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ENOUGH_FILES = 1_024
USED = 0.9  # of the memory, at most
HUGE_PAGES_FROM_BYTES = 64 << 20  # of state: below, the page tables are cached whatever the size of a page
PORT_TIMEOUT_SECONDS = 2.0
UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)

PortState = Literal["free", "ours", "taken", "off", "any"]


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file that holds a secret, by the setting that names it."""

    setting: str
    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Bytes, cores, and None for what can't be known here. `cpu_quota`: cores that the container may use up."""

    versions: tuple[tuple[str, str], ...]
    threads: int
    cpu_quota: float | None
    memory_limit: int
    memory_available: int
    open_files: int
    huge_pages: str | None
    clock_error_ms: float | None
    clock_synchronised: bool | None
    port: PortState
    port_problem: str
    secrets: tuple[SecretFile, ...]


def host_facts(config: Config) -> HostFacts:
    synchronised, error_ms = _clock()
    state, problem = _port(config)
    return HostFacts(
        versions=(
            ("streamlstm", __version__),
            ("python", platform.python_version()),
            *((name, version(name)) for name in ("numpy", "numba", "llvmlite", "kafka-python")),
        ),
        threads=thread_count(config.engine.threads),
        cpu_quota=cpu_quota(),
        memory_limit=memory_limit(),
        memory_available=memory("MemAvailable"),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        huge_pages=chosen(HUGE_PAGES_FILE.read_text()) if HUGE_PAGES_FILE.exists() else None,
        clock_error_ms=error_ms,
        clock_synchronised=synchronised,
        port=state,
        port_problem=problem,
        secrets=tuple(_secrets(config)),
    )


def judge_host(config: Config, facts: HostFacts, sizing: Sizing | None) -> Iterator[Finding]:
    """`sizing`: what `size` predicts; None without a model."""
    yield good("versions", ", ".join(f"{name} {number}" for name, number in facts.versions))
    yield _threads(facts)
    yield _memory(facts, sizing)
    if facts.open_files in (-1, resource.RLIM_INFINITY) or facts.open_files >= ENOUGH_FILES:
        yield good("open files", "no limit" if facts.open_files < 0 else f"up to {facts.open_files:,}")
    else:
        expected = f"at least {ENOUGH_FILES:,}: a connection to each broker, three times, and those of readers"
        fix = "LimitNOFILE=65536 in the unit, or ulimit -n 65536"
        yield doubtful("open files", f"up to {facts.open_files:,}", expected, fix)
    yield _huge_pages(facts, sizing)
    yield _host_clock(facts)
    yield _port_verdict(config, facts)
    yield from _secret_verdicts(facts)


def _threads(facts: HostFacts) -> Finding:
    if facts.cpu_quota is None or facts.threads <= facts.cpu_quota + 0.5:
        limit = "" if facts.cpu_quota is None else f", of {facts.cpu_quota:g} cores that the container may use up"
        return good("threads", f"{facts.threads} for the step{limit}")
    return doubtful(
        "threads",
        f"{facts.threads} for the step, where the container may use up {facts.cpu_quota:g} cores",
        "no more than that: above it the kernel stops all of them for the rest of each period of 100 ms",
        f"engine.threads = {max(1, int(facts.cpu_quota))}, or a higher CPU limit",
    )


def _memory(facts: HostFacts, sizing: Sizing | None) -> Finding:
    if sizing is None:
        return skipped("memory", "needs a model")
    needed, limit, available = sizing.resident_bytes, facts.memory_limit, facts.memory_available
    found = f"{needed / 1e6:,.0f} MB when full, of {limit / 1e6:,.0f} MB of this machine or container"
    if needed > limit:
        return bad("memory", found, "no more than there is", _fitting(sizing, USED * limit), InputMissingError)
    if needed > USED * limit:
        return doubtful("memory", found, f"at most {USED:.0%} of it", _fitting(sizing, USED * limit))
    if needed > available and facts.port != "ours":
        found = f"{needed / 1e6:,.0f} MB when full, {available / 1e6:,.0f} MB available now"
        return doubtful("memory", found, "what it will take to be free", _fitting(sizing, available))
    return good("memory", found)


def _fitting(sizing: Sizing, limit: float) -> str:
    fixed = sizing.resident_bytes - sizing.streams * sizing.bytes_per_stream
    streams = int((limit - fixed) / sizing.bytes_per_stream)
    if streams < 1:
        return f"more memory: {fixed / 1e6:,.0f} MB are taken without a stream"
    return f"state.max_streams = {streams} fits, or more memory"


def _huge_pages(facts: HostFacts, sizing: Sizing | None) -> Finding:
    """NumPy asks for huge pages with madvise(2), so `madvise` is enough."""
    if facts.huge_pages is None:
        return skipped("huge pages", f"{HUGE_PAGES_FILE} is not there")
    state_bytes = 0 if sizing is None else sizing.streams * sizing.bytes_per_stream
    if facts.huge_pages == "never" and state_bytes > HUGE_PAGES_FROM_BYTES:
        expected = "madvise or always: rows of streams at random cost fewer page walks"
        return doubtful("huge pages", "never", expected, f"echo madvise > {HUGE_PAGES_FILE}")
    return good("huge pages", facts.huge_pages)


def _host_clock(facts: HostFacts) -> Finding:
    if facts.clock_synchronised is None:
        return skipped("clock", "adjtimex(2) is not allowed here")
    if facts.clock_synchronised:
        return good("clock", f"synchronised, at most {facts.clock_error_ms:,.0f} ms off by its own account")
    expected = "a clock that is kept by NTP: retention and the age limits of topics go by it"
    return doubtful("clock", "the kernel says that nobody synchronises it", expected, "systemctl enable --now chrony")


def _port_verdict(config: Config, facts: HostFacts) -> Finding:
    where = f"{config.metrics.host}:{config.metrics.port}"
    if facts.port == "off":
        return doubtful(
            "metrics port", "metrics.enabled = false", "the pages that probes and Prometheus read",
            "metrics.enabled = true",
        )  # fmt: skip
    if facts.port == "ours":
        return good("metrics port", f"{where}: a daemon answers there")
    if facts.port == "taken":
        expected = "a free port, or this daemon behind it"
        return bad("metrics port", f"{where}: {facts.port_problem}", expected, "metrics.port = another", ConfigError)
    return good("metrics port", f"{where} is free" if facts.port == "free" else "any free one")


def _secret_verdicts(facts: HostFacts) -> Iterator[Finding]:
    for each in facts.secrets:
        shown = f"{each.path} has mode {stat.filemode(each.mode)}"
        if each.mode & (stat.S_IROTH | stat.S_IWOTH):
            yield doubtful(each.setting, shown, "a file that only the daemon's user reads", f"chmod 600 {each.path}")
        else:
            yield good(each.setting, shown)


def chosen(text: str) -> str:
    """The word in brackets of a setting in /sys, such as "always [madvise] never"."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else text.strip()


def _clock() -> tuple[bool | None, float | None]:
    """Whether the kernel's clock is synchronised, and its own bound of the error in ms; adjtimex(2) with modes 0 only
    reads. struct timex: u32 modes, then longs: offset, freq, maxerror (us).
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "adjtimex"):
        return None, None
    timex = ctypes.create_string_buffer(512)
    state = library.adjtimex(timex)
    if state < 0:
        return None, None
    _, _, _, error_us = struct.unpack_from("@Illl", timex)
    return state != UNSYNCHRONISED, error_us / 1000


def _port(config: Config) -> tuple[PortState, str]:
    """Bind where the daemon will, and let go again; who is there already is asked whether it is a daemon of ours."""
    given = config.metrics
    if not given.enabled:
        return "off", ""
    if given.port == 0:
        return "any", ""
    try:
        family, kind, _, _, address = socket.getaddrinfo(given.host, given.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_daemon(given.host, given.port):
            return "ours", ""
        return "taken", error.strerror or str(error)
    return "free", ""


def _is_daemon(host: str, port: int) -> bool:
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{local}]:{port}/metrics" if ":" in local else f"http://{local}:{port}/metrics"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=PORT_TIMEOUT_SECONDS) as page:
            return b"streamlstm_build_info" in page.read()
    except (OSError, HTTPException):
        return False


def _secrets(config: Config) -> Iterator[SecretFile]:
    for name in (*SECRETS.values(), "ssl_keyfile"):
        path = getattr(config.kafka.security, name)
        if path is not None:
            yield SecretFile(f"kafka.security.{name}", path, os.stat(path).st_mode)
