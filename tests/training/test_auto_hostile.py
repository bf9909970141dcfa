"""The automatic recipe over the hostile histories: a finite model or a refusal in one sentence, never a traceback."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from streamlstm.cli.main import commands
from streamlstm.errors import StreamlstmError
from streamlstm.model.model_file import load
from tests.history.hostile import CORPUS

OPTIONS = ("--hidden", "2", "--steps", "2", "--batch", "4", "--horizon", "2", "--threads", "1")


@pytest.mark.parametrize("name", CORPUS)
def test_a_model_or_a_refusal(name: str, tmp_path: Path) -> None:
    content, _ = CORPUS[name]
    path, model_path = tmp_path / name, tmp_path / "model"
    path.write_bytes(content)
    found = CliRunner().invoke(commands, ["train", str(path), "-o", str(model_path), *OPTIONS])
    if found.exit_code == 0:
        model = load(model_path)
        assert model.features is not None
        assert np.isfinite(model.features.skip).all()
        return
    assert isinstance(found.exception, StreamlstmError), found.exception
    message = str(found.exception)
    assert message.isprintable()
    assert len(message) < 600
    assert not model_path.exists()
