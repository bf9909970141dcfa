"""Compile, or load from the cache, everything that the loop will call: before the group hears of this member.

A compile holds the interpreter for seconds; the heartbeats of a member that has joined would stop meanwhile.
"""

import logging
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace

import orjson

from streamlstm.config import Config
from streamlstm.engine.forecaster import Forecaster
from streamlstm.errors import AccessError, InvariantError
from streamlstm.kernels import compile as kernel_compiler
from streamlstm.model.model_file import Model
from streamlstm.service.counters import Counters
from streamlstm.service.pending import Pending
from streamlstm.service.pipeline import Pipeline
from streamlstm.service.wiring import forecaster_settings
from streamlstm.transport.fetched import FetchedBatch
from streamlstm.transport.source import Fetched

log = logging.getLogger(__name__)


def compile_apart() -> None:
    """Have what the cache lacks compiled by a process of its own, so that `warm_up` finds it there.

    Memory that LLVM leaves scattered behind would stay resident in this one: 330 MB, seen after a million events.
    Nor would anything answer on /livez meanwhile. Where it fails, or nothing can be kept, `warm_up` compiles.
    """
    if not kernel_compiler.lacking():
        return
    command = [sys.executable, "-m", "streamlstm", "compile"]
    try:  # not in the terminal's group: Ctrl-C is for this process
        done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
        error = f"exit code {done.returncode}: {done.stderr.strip()[-500:]}" if done.returncode else ""
    except OSError as failed:
        error = str(failed)
    if error:
        log.warning("compiling in a process of its own failed: it is done here", extra={"error": error})


def warm_up(config: Config, model: Model, executor: Executor) -> None:
    """Send a few records through a pipeline of its own, as small as it can be. Touches no state that serves."""
    kernel_compiler.warm_up()
    settings = replace(forecaster_settings(config, threads=1), max_streams=16)
    pipeline = Pipeline(config, Forecaster(model, settings, executor), None, Counters())
    pending = Pending()
    for value in _sample_values(config, model):
        records = _record(b"sample", value)
        batch = FetchedBatch(
            config.input.topic, 0, records, 1, base_offset=0, last_offset=0, base_timestamp=0, append_time=-1,
            min_offset=0, leader_epoch=0,
        )  # fmt: skip
        pipeline.add(Fetched(batches=[batch], positions={(config.input.topic, 0): 1}), pending, now=0.0)
    pipeline.encode(pending)


def compile_beforehand(level: str | None) -> str:
    """Put every kernel into the cache; says what was done. `level` is what NUMBA_CPU_NAME asked for at the start.

    Raises AccessError when the cache couldn't keep them all, InvariantError when something else is compiled for.
    """
    _, found = kernel_compiler.compiled_for()
    if level not in (None, found):
        raise InvariantError(f"compile_beforehand: compiling for {found}, expected {level}: Numba was there before")
    count = kernel_compiler.compile_all()
    _, _, problems = kernel_compiler.cache_tally()
    if problems:
        raise AccessError("kernel cache: " + "; ".join(problems))
    return f"{count} kernels for {found}, {kernel_compiler.cache_status()}"


def _sample_values(config: Config, model: Model) -> Iterator[bytes]:
    """A good event in each shape that the configuration allows, and a bad one."""
    inputs = len(model.inputs)
    if config.input.format == "raw":
        yield struct.pack(f"<{inputs}d", *[0.5] * inputs)
        yield struct.pack(f"<{inputs + 1}d", 0.0, *[0.5] * inputs)
    else:
        time = _nested(config.input.time_fields[0], 1_730_000_000_000)
        yield orjson.dumps(time | _nested(config.input.values_field, [0.5] * inputs))
        yield orjson.dumps(time | _nested(config.input.values_field, dict.fromkeys(model.inputs, 0.5)))
        if inputs == 1:
            yield orjson.dumps(time | _nested(config.input.value_fields[0], -1.25e-3))
    yield b"{"


def _nested(path: str, value: object) -> dict[str, object]:
    name, _, rest = path.partition(".")
    return {name: _nested(rest, value) if rest else value}


def _record(key: bytes, value: bytes) -> bytes:
    """A record of format v2 without headers: attributes, time and offset deltas 0, key, value, header count 0."""
    body = b"\0\0\0" + _varint(len(key)) + key + _varint(len(value)) + value + b"\0"
    return _varint(len(body)) + body


def _varint(n: int) -> bytes:
    """A non-negative int as a zigzag varint."""
    n *= 2
    encoded = bytearray()
    while n >= 128:
        encoded.append(n & 127 | 128)
        n >>= 7
    encoded.append(n)
    return bytes(encoded)
