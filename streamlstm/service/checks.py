"""`streamlstm check`: everything that a start needs, tried without starting; every problem told, not just the first."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from streamlstm.config import Config
from streamlstm.errors import InputMissingError, StreamlstmError
from streamlstm.kernels.compile import cache_status
from streamlstm.model.model_file import Model, load
from streamlstm.service.limits import memory_limit
from streamlstm.service.sizing import predict
from streamlstm.service.warmup import warm_up
from streamlstm.service.wiring import (
    check_cluster,
    connection_settings,
    needed_permissions,
    writer_settings,
    written_topics,
)
from streamlstm.transport.access import Permission, principal_of
from streamlstm.transport.cluster import Cluster
from streamlstm.transport.permissions import check_permissions

Result = TypeVar("Result")


@dataclass(slots=True)
class Report:
    """What was found, line by line. The exit code is that of the first problem."""

    lines: list[str] = field(default_factory=list)
    exit_code: int = 0

    def good(self, what: str, detail: str) -> None:
        self.lines.append(f"ok    {what}: {detail}")

    def bad(self, what: str, error: StreamlstmError) -> None:
        self.lines += [f"FAIL  {what}: {line}" for line in str(error).splitlines()]
        self.exit_code = self.exit_code or error.exit_code

    def skipped(self, what: str, why: str) -> None:
        self.lines.append(f"-     {what}: not tried, {why}")


def check(config: Config, *, create_topics: bool) -> Report:
    """Try the model, the kernels, the memory, the brokers and the topics; `create_topics` makes those to be written."""
    report = Report()
    report.good("configuration", "every setting is valid")
    model = _try(report, "model", lambda: load(Path(config.model.path)))
    if model is None:
        report.skipped("kernels", "without a model")
        report.skipped("memory", "without a model")
    else:
        report.good("model", f"{config.model.path}, hash {model.model_hash[:12]}")
        if _try(report, "kernels", lambda: compile_kernels(config, model)):
            report.good("kernels", f"the golden vectors come out; {cache_status()}")
        if _try(report, "memory", lambda: _fits(config, model)):
            report.good("memory", f"{predict(config, model).resident_bytes / 1e6:,.0f} MB when full")
    with _connected(report, config) as cluster:
        if cluster is None:
            report.skipped("topics", "without a broker")
            return report
        report.good("brokers", ", ".join(config.kafka.bootstrap_servers))
        if _try(report, "permissions", lambda: _permitted(cluster, config)) is None:
            report.skipped("topics", "without the permissions")
            return report
        warnings = _try(report, "topics", lambda: check_cluster(cluster, config, create=create_topics))
        if warnings is not None:
            report.good("permissions", f"{principal_of(cluster.settings.security)} may do all that is needed")
            report.good("topics", ", ".join((config.input.topic, *written_topics(config))))
            report.lines += [f"note  topics: {warning}" for warning in warnings]
    return report


def _try(report: Report, what: str, attempt: Callable[[], Result]) -> Result | None:
    """The attempt's result, or None with its error in the report."""
    try:
        return attempt()
    except StreamlstmError as error:
        report.bad(what, error)
    except OSError as error:
        report.bad(what, InputMissingError(f"{error.filename}: {error.strerror}"))
    return None


def compile_kernels(config: Config, model: Model) -> bool:
    """Re-run the golden vectors and compile, or load, what a start does. Raises ModelFileError."""
    with ThreadPoolExecutor(1) as executor:
        warm_up(config, model, executor)
    return True


def _permitted(cluster: Cluster, config: Config) -> bool:
    transactional_id = Permission("Write", "transactional-id", writer_settings(config).transactional_id)
    check_permissions(cluster, [*needed_permissions(config), transactional_id])
    return True


def _fits(config: Config, model: Model) -> bool:
    """Raises InputMissingError when the state cannot fit the memory of this machine or container."""
    needed, there = predict(config, model).resident_bytes, memory_limit()
    if needed > there:
        raise InputMissingError(
            f"state.max_streams = {config.state.max_streams:,} needs {needed / 1e6:,.0f} MB when full; "
            f"expected at most the {there / 1e6:,.0f} MB of this machine or container"
        )
    return True


@contextmanager
def _connected(report: Report, config: Config) -> Iterator[Cluster | None]:
    cluster = _try(report, "brokers", lambda: Cluster.connect(connection_settings(config), time.monotonic))
    try:
        yield cluster
    finally:
        if cluster is not None:
            cluster.close()
