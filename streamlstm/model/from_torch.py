"""PyTorch files: a state_dict, or a checkpoint that holds one."""

from pathlib import Path
from typing import Any

from streamlstm.errors import ModelFileError
from streamlstm.model.fields import brief
from streamlstm.model.imported import Imported
from streamlstm.model.state_dict import is_state_dict, read_state_dict
from streamlstm.model.tensors import Tensor
from streamlstm.model.torch_file import TorchFile, read_legacy, read_zip
from streamlstm.model.torch_values import Opaque, TensorRef

# Keys under which training scripts save the weights, most explicit first.
STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model_state", "model", "net", "network", "module", "weights")


def read_torch(path: Path, zipped: bool) -> Imported:
    """Read a file of torch.save, zipped or legacy. Raises ModelFileError; runs nothing of the file."""
    file = read_zip(path) if zipped else read_legacy(path)
    where, state_dict, notes = _find_state_dict(file)
    tensors = _tensors(file, state_dict, where)
    parameters, more = read_state_dict(tensors, str(path))
    container = "zip" if zipped else "legacy"
    return Imported(
        parameters, origin={"framework": "pytorch", "format": f"torch.save ({container})"}, notes=notes + more
    )


def _find_state_dict(file: TorchFile) -> tuple[str, dict[Any, Any], tuple[str, ...]]:
    """Where the state_dict stands in the file, the dictionary, and a note of what was left out."""
    value = file.value
    if not isinstance(value, dict):
        kind = "a bare tensor" if isinstance(value, TensorRef) else brief(value)
        raise ModelFileError(f"{file.where}: value", "not a state_dict", expected="a dictionary of tensors", found=kind)
    if is_state_dict(value):
        return file.where, value, ()
    found = {str(key): member for key, member in value.items() if is_state_dict(member)}
    chosen = next((key for key in STATE_DICT_KEYS if key in found), None) or (min(found) if len(found) == 1 else None)
    if chosen is None or (len(found) > 1 and chosen not in STATE_DICT_KEYS[:2]):
        names = sorted(found) or sorted(str(key)[:60] for key in list(value)[:20]) or ["an empty dictionary"]
        raise ModelFileError(
            f"{file.where}: weight_ih_l0",
            "several state_dicts" if found else "no LSTM in it",
            expected="one nn.LSTM with its nn.Linear",
            found=", ".join(names)[:200],
        )
    left = ", ".join(sorted(str(key)[:60] for key in value if str(key) != chosen))[:200]
    notes = (f"took {chosen!r} of the checkpoint and left {left}",) if left else ()
    return f"{file.where}: {chosen}", found[chosen], notes


def _tensors(file: TorchFile, state_dict: dict[Any, Any], where: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, member in state_dict.items():
        if not isinstance(key, str) or not isinstance(member, TensorRef):
            kind = member.kind if isinstance(member, Opaque) else brief(member)
            problem = "not a plain dense tensor"
            raise ModelFileError(f"{where}: {str(key)[:200]}", problem, expected="a float tensor", found=kind)
        tensors[key] = file.tensor(key, member)
    return tensors
