from pathlib import Path
from streamlstm.model.imported import Imported


def read_keras_zip(path: Path) -> Imported:
    raise NotImplementedError


def read_keras_h5(path: Path) -> Imported:
    raise NotImplementedError
