"""Keras files of the fixtures, taken apart and put together with other configurations."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model.importing import read_foreign

FIXTURES = Path(__file__).parent.parent / "fixtures" / "keras"


def members(file: str) -> tuple[dict[str, Any], bytes]:
    with zipfile.ZipFile(FIXTURES / file) as archive:
        return json.loads(archive.read("config.json")), archive.read("model.weights.h5")


def write(path: Path, config: object, weights: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", weights)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as error:
        read_foreign(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert len(message) < 1500
    return message


def layer(config: dict[str, Any], class_name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in config["config"]["layers"] if entry["class_name"] == class_name)
    return found
