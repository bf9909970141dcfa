"""Fuzz the path from a partition's bytes to answers: `make fuzz MINUTES=n`, or one kept input: --replay FILE.

The work is done in a child process, so that a crash of compiled code or a hang is found and not suffered. Every log is
made from a number; the child leaves that of its current one in a file that it shares with the parent.
"""

import argparse
import mmap
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.cases import Case
from tests.fuzz.mutations import random_case
from tests.fuzz.path import FuzzPath, WrongError, check, log_of, read_found, write_found

FOUND = Path(__file__).parent / "found"
CASES_PER_LOG = 6
HANGS_AFTER = 30.0
WRONG = 3
_NUMBERS = struct.Struct("<QQ")  # the number of the log at hand, and how many are done


def cases_of(number: int) -> list[Case]:
    chance = random.Random(number)
    return [random_case(chance) for _ in range(CASES_PER_LOG)]


def broken_by(path: FuzzPath, cases: Sequence[Case], start: int) -> str:
    """What is wrong with the answers to these cases; nothing when all is well."""
    try:
        check(path, log_of(cases, start))
    except WrongError as error:
        return str(error)
    except Exception as error:  # whatever it is: it would have ended the daemon
        return f"{type(error).__name__}: {error}"
    return ""


def keep(cases: Sequence[Case], number: int, why: str) -> None:
    kept = write_found(FOUND, f"{number}", cases)
    print(f"found {kept}: {why}\n  {', '.join(case.name for case in cases)}")
    print(f"  again: {sys.executable} -m tests.fuzz.run --replay {kept}", flush=True)


def work(first: int, seconds: float, shared: Path) -> int:
    """The child: logs from number `first` on, until the time is over."""
    path, found, until = FuzzPath(), 0, time.monotonic() + seconds
    with shared.open("r+b") as file, mmap.mmap(file.fileno(), _NUMBERS.size) as numbers:
        number = first
        while time.monotonic() < until:
            numbers[:] = _NUMBERS.pack(number, number - first)
            cases, start = cases_of(number), number % 1000
            why = broken_by(path, cases, start)
            if why:
                found += 1
                path = FuzzPath()
                guilty = [case for case in cases if broken_by(FuzzPath(), [case], start)][:1] or cases
                keep(guilty, number, why)
            number += 1
        numbers[:] = _NUMBERS.pack(number, number - first)
    return WRONG if found else 0


def watch(first: int, seconds: float) -> int:
    """The parent: starts children until the time is over; returns how many ended badly."""
    bad, done, number, until = 0, 0, first, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "numbers"
        while (left := until - time.monotonic()) > 0:
            shared.write_bytes(_NUMBERS.pack(number, 0))
            command = [sys.executable, "-m", "tests.fuzz.run", "--child", str(shared)]
            child = subprocess.Popen([*command, "--seed", str(number), "--seconds", str(left)])
            code = _wait(child, shared)
            number, count = _NUMBERS.unpack(shared.read_bytes())
            done += count
            bad += code != 0
            if code not in (0, WRONG):
                keep(cases_of(number), number, "hangs" if code is None else f"the process ended with {code}")
                number += 1
    print(f"{done} logs of {CASES_PER_LOG} damaged batches in {seconds:.0f} s, {bad} children ended badly")
    return bad


def _wait(child: subprocess.Popen[bytes], shared: Path) -> int | None:
    """The exit code, None when it had to be killed because it stood still."""
    seen, since = shared.read_bytes(), time.monotonic() + 2 * HANGS_AFTER  # it compiles first
    while child.poll() is None:
        now = shared.read_bytes()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > HANGS_AFTER:
            child.kill()
            child.wait()
            return None
        time.sleep(0.1)
    return child.returncode


def replay(kept: Path) -> int:
    why = broken_by(FuzzPath(), read_found(kept), int(kept.stem) % 1000 if kept.stem.isdigit() else 0)
    print(why or "all is well")
    return 1 if why else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=0, help="number of the first log (%(default)s)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a kept input, once")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    seconds = 60 * arguments.minutes if arguments.seconds is None else arguments.seconds
    if arguments.replay:
        return replay(arguments.replay)
    if arguments.child:
        return work(arguments.seed, seconds, arguments.child)
    return 1 if watch(arguments.seed, seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
