from pathlib import Path
from streamlstm.model.imported import Imported


def read_onnx(path: Path) -> Imported:
    raise NotImplementedError
