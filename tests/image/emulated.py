"""The image on CPUs that this machine is not: QEMU's user mode has them, down to those without AVX."""

import shutil
import subprocess
from pathlib import Path

from tests.image.built import Image, Specification

EMULATOR = "qemu-x86_64-static"
CPUS = {"Nehalem": "x86-64-v2", "Haswell": "x86-64-v3"}
"""A CPU of each level below the fourth, which QEMU doesn't have: an instruction that it lacks ends the program."""

SERVE = """
import sys
from streamlstm.cli.main import outcome
from streamlstm.kernels.compile import cache_status, compiled_for
code = outcome(["forecast", "--model", "/model.safetensors", "--input", "/history.csv", "--output", "-"])
print(compiled_for()[1], cache_status(), file=sys.stderr)
sys.exit(code)
"""


def forecast(image: Image, model: Path, history: Path, cpu: str | None = None) -> tuple[bytes, str]:
    """The bytes of `streamlstm forecast` in the container, and the last line it says: what was compiled for, and how
    many kernels were. On a `cpu` of QEMU's, or on the real one. Raises CalledProcessError.
    """
    emulator = Path(shutil.which(EMULATOR) or EMULATOR)
    emulated = ["/emulator", "-cpu", cpu] if cpu else []
    volumes = {"/model.safetensors": model, "/history.csv": history, **({"/emulator": emulator} if cpu else {})}
    python = image.root / "opt/streamlstm/bin/python3"
    asked = Specification(
        image,
        ["-c", SERVE],
        entrypoint=[*emulated, "/" + str(python.relative_to(image.root))],
        volumes=volumes,
    )
    done = subprocess.run(asked.command(f"forecast-{cpu or 'here'}"), capture_output=True, check=True)
    return done.stdout, done.stderr.decode().strip().splitlines()[-1]
