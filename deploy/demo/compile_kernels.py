"""Compile what the daemon will call into its cache: `python -m deploy.demo.compile_kernels`.

The daemon does the same at its start; the demo has it done beforehand, beside the start of the broker.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.demo.daemon import CONFIG
from streamlstm.cli.options import load_config
from streamlstm.model.model_file import load
from streamlstm.service.warmup import warm_up


def main() -> None:
    config = load_config(CONFIG, ())
    with ThreadPoolExecutor(1) as executor:
        warm_up(config, load(Path(config.model.path)), executor)


if __name__ == "__main__":
    main()
