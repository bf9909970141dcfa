"""Safetensors files with PyTorch's tensor names."""

from pathlib import Path

from streamlstm.errors import ModelFileError
from streamlstm.model.imported import Imported
from streamlstm.model.model_file import is_model_file
from streamlstm.model.safetensors_file import read_safetensors
from streamlstm.model.state_dict import read_state_dict


def read_torch_safetensors(path: Path) -> Imported:
    """Raises ModelFileError, also on a model file of streamlstm, which needs no importing."""
    tensors, metadata = read_safetensors(path)
    if is_model_file(metadata):
        problem = "already a streamlstm model file; use it as it is"
        raise ModelFileError(f"{path}: __metadata__", problem, expected="a foreign model", found="streamlstm")
    parameters, notes = read_state_dict(tensors, str(path))
    return Imported(parameters, origin={"framework": "pytorch", "format": "safetensors"}, notes=notes)
