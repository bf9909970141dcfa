"""The weights of a Keras model by layer, from either layout of its HDF5 files.

Keras 3 and the .keras zip: layers/<class name, counted>/[cell/]vars/<number>. Legacy (whole-model and Keras 2 weights):
<layer name>/.../<kernel:0 and so on>. Optimizer state and metrics are left aside, knowingly; everything else must
find its layer.
"""

import re
from dataclasses import dataclass, field

from streamlstm.errors import ModelFileError
from streamlstm.model.hdf5_file import Hdf5Contents
from streamlstm.model.keras_config import KerasLayer
from streamlstm.model.tensors import Tensor

_PREFIX = re.compile(r"(layers|_layer_checkpoint_dependencies)/")
_COUNTED = {
    "LSTM": ("cell/vars/0", "cell/vars/1", "cell/vars/2"),
    "Dense": ("vars/0", "vars/1"),
    "TimeDistributed": ("layer/vars/0", "layer/vars/1"),
    "Normalization": ("vars/0", "vars/1", "vars/2"),
}
_NAMED = {
    "LSTM": ("kernel", "recurrent_kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "TimeDistributed": ("kernel", "bias"),
    "Normalization": ("mean", "variance", "count"),
}


@dataclass
class KerasWeights:
    """Tensors by group of a layer and name in it. `counted`: the Keras 3 layout. `order`: groups as the model has
    them.
    """

    where: str
    counted: bool
    order: list[str]
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def take(self, layer: KerasLayer) -> list[Tensor]:
        """The tensors of a layer in Keras' order: kernel, recurrent kernel, bias. The optional last ones may be
        absent.
        """
        found = self.tensors.pop(layer.key if self.counted else layer.name, {})
        taken: list[Tensor] = []
        for name in (_COUNTED if self.counted else _NAMED)[layer.class_name]:
            if name not in found:
                break
            taken.append(found.pop(name))
        self._require_used(found)
        return taken

    def finish(self) -> None:
        """Raises ModelFileError when a tensor belongs to no layer that was taken."""
        for found in self.tensors.values():
            self._require_used(found)

    def _require_used(self, found: dict[str, Tensor]) -> None:
        for name, tensor in found.items():
            if "seed_generator" not in name:  # the random state of dropout
                raise ModelFileError(
                    tensor.where, "a tensor of no known use", expected="none left over", found=str(tensor.shape)
                )


def read_weights(file: Hdf5Contents) -> KerasWeights:
    """Raises ModelFileError when the file holds no weights of Keras."""
    if "model_weights" in file.groups:
        return _legacy(file, "model_weights/")
    if "layer_names" in file.texts:
        return _legacy(file, "")
    weights = KerasWeights(file.where, True, [])
    for path in file.groups:
        layer = _PREFIX.sub("", path).split("/")[0]
        if _PREFIX.match(path) and layer not in weights.order:
            weights.order.append(layer)
    for path, tensor in file.tensors.items():
        if not _PREFIX.match(path):
            raise ModelFileError(tensor.where, "a tensor of no layer", expected="layers/...", found=str(tensor.shape))
        layer, _, name = _PREFIX.sub("", path).partition("/")
        weights.tensors.setdefault(layer, {})[name] = tensor
    if not weights.order:
        raise ModelFileError(f"{file.where}: layers", "no weights of Keras", expected="a group layers", found="none")
    return weights


def _legacy(file: Hdf5Contents, root: str) -> KerasWeights:
    weights = KerasWeights(file.where, False, file.texts.get("layer_names", []))
    for path, tensor in file.tensors.items():
        if not path.startswith(root):
            raise ModelFileError(tensor.where, "a tensor of no layer", expected=f"{root}...", found=str(tensor.shape))
        layer, _, rest = path.removeprefix(root).partition("/")
        name = rest.rpartition("/")[2].removesuffix(":0")
        found = weights.tensors.setdefault(layer, {})
        if name in found:
            raise ModelFileError(
                tensor.where, "two tensors of one name in a layer", expected=f"one {name}", found="two"
            )
        found[name] = tensor
    return weights
