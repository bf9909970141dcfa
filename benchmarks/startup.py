"""From `streamlstm run` to ready: with an empty kernel cache, as the first time on a machine, and from a warm one.

    .venv/bin/python benchmarks/startup.py [--runs 5] [--hidden 50]

Ready is what `/readyz` says: every partition live. The topics are there and empty, the broker is on this machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, median, write
from local_daemon import LocalKafka, create_topics, daemon, make_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        make_model(Path(name) / "model.safetensors", args.hidden)
        create_topics(kafka.bootstrap, ["events"])
        os.environ["STREAMLSTM_CACHE_DIR"] = str(Path(name) / "cache")
        cold, *warm = [_seconds_to_ready(kafka.bootstrap, Path(name)) for _ in range(1 + args.runs)]
        helped = [_seconds_to_help() for _ in range(args.runs)]
    print(f"ready after {cold:.1f} s with an empty kernel cache")
    print(f"ready after {statistics.median(warm):.2f} s from a warm one ({min(warm):.2f} to {max(warm):.2f})")
    print(f"`streamlstm --help`: {statistics.median(helped):.2f} s ({min(helped):.2f} to {max(helped):.2f})")
    write(
        args.json,
        [
            Figure("start to ready, empty kernel cache", cold, "s"),
            median("start to ready, warm kernel cache", warm, "s"),
            median("streamlstm --help", helped, "s"),
        ],
    )


def _seconds_to_ready(bootstrap: str, folder: Path) -> float:
    began = time.monotonic()
    with daemon(bootstrap, folder, "events"):
        return time.monotonic() - began


def _seconds_to_help() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "streamlstm", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
