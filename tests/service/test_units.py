"""The units of deploy/systemd say what the code does."""

import difflib
from pathlib import Path

import pytest

from streamlstm import errors
from streamlstm.config import Config
from streamlstm.service.daemon import LEAVING_SECONDS
from streamlstm.service.health import START_LIMIT_SECONDS
from streamlstm.service.loop import drain_seconds

FOLDER = Path(__file__).absolute().parents[2] / "deploy" / "systemd"
UNIT, TEMPLATE = ((FOLDER / name).read_text() for name in ("streamlstm.service", "streamlstm@.service"))


def values(key: str) -> list[str]:
    return [line.partition("=")[2] for line in UNIT.splitlines() if line.startswith(f"{key}=")]


def seconds(key: str) -> float:
    (text,) = values(key)
    assert text.endswith("s")
    return float(text[:-1])


def tree(error: type[errors.StreamlstmError]) -> set[type[errors.StreamlstmError]]:
    return {error}.union(*map(tree, error.__subclasses__()))


def test_every_exit_code_is_worth_a_restart_or_not() -> None:
    codes = {error.exit_code for error in tree(errors.StreamlstmError)}
    prevented = {int(code) for code in values("RestartPreventExitStatus")[0].split() if int(code) < 200}
    assert codes - prevented == {errors.InvariantError.exit_code, errors.RetryError.exit_code}
    assert prevented <= codes


def test_times_fit_the_daemon() -> None:
    config = Config()
    assert seconds("TimeoutStopSec") >= drain_seconds(config) + LEAVING_SECONDS
    assert seconds("WatchdogSec") + seconds("RestartSec") < config.kafka.session_timeout_ms / 1000
    assert seconds("TimeoutStartSec") == START_LIMIT_SECONDS


def test_the_template_differs_by_its_name_alone() -> None:
    differing = [
        line[2:]
        for line in difflib.ndiff(UNIT.splitlines(), TEMPLATE.splitlines())
        if line[0] in "-+" and not line[2:].startswith("#")
    ]
    assert {line.partition("=")[0] for line in differing} == {"Description", "ExecStart", "Environment"}
    assert {f"Environment=STREAMLSTM_KAFKA__GROUP_INSTANCE_ID={name}" for name in ("%l", "%l-%i")} < set(differing)
    assert len(differing) == 6


@pytest.mark.parametrize("text", [UNIT, TEMPLATE])
def test_lines_end_up_in_a_section(text: str) -> None:
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
