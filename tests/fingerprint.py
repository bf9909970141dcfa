"""What a script prints by itself, with its own cache of kernels and compiled for the CPU that the environment names."""

import os
import subprocess
import sys
from pathlib import Path


def fingerprint(script: str, cache: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, "STREAMLSTM_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    ).stdout.strip()
