"""Fault points are for tests/trust/member.py alone: the product refuses the variable and strikes nowhere."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trust.member import VARIABLE

ROOT = Path(__file__).absolute().parents[2]


def test_the_product_refuses_the_variable() -> None:
    command = [sys.executable, "-m", "streamlstm", "run"]
    environment = {**os.environ, VARIABLE: "kill:produced:1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert VARIABLE in done.stderr
    assert "unknown key" in done.stderr


@pytest.mark.parametrize(
    ("text", "code"), [("kill:twice:2", -signal.SIGKILL), ("kill:twice:3", 0), ("kill:never:1", 0)]
)
def test_a_member_strikes_itself_at_the_nth_passage(text: str, code: int) -> None:
    program = "from tests.trust.member import *; import os\nfault_points.hook = Strike(os.environ['TEXT'])\n"
    program += "for _ in range(2): fault_points.reach('twice')\n"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "TEXT": text}, cwd=ROOT, check=False)
    assert done.returncode == code


def test_the_wrapper_runs_the_product_as_it_is() -> None:
    environment = {**os.environ, VARIABLE: "kill:produced:1"}
    command = [sys.executable, "-m", "tests.trust.member", "--version"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
