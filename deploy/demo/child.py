"""Processes that end with the demo, however it ends."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start_python(module: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """`python -m module arguments...` from the root of the checkout, its output in `log`.

    In a session of its own, so that Ctrl-C reaches the demo alone, which then ends it; and where util-linux's setpriv
    is there the kernel kills it when the demo dies without a word.
    """
    with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with log.open("wb") as out:
        return subprocess.Popen(
            [*with_parent, sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it whatever it does; nothing when it has ended."""
    if process.poll() is None:
        process.kill()
        process.wait()


def end_of(log: Path) -> str:
    """The last lines of a log, to put behind an error message."""
    return "; the end of its log:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:])
