"""Good files with random damage: read, or refused in words. Seeded, so that a failure comes back."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model.importing import read_foreign
from streamlstm.model.model_file import load, save

FIXTURES = Path(__file__).parent.parent / "fixtures"
EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut short, or some bytes changed, more of them near both ends, where containers keep their records."""
    if rng.random() < 0.15:
        return content[: rng.randrange(1, len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        places = (
            rng.randrange(len(changed)),
            rng.randrange(min(len(changed), 3000)),
            -1 - rng.randrange(min(len(changed), 800)),
        )
        changed[rng.choice(places)] = rng.choice((*EDGES, rng.randrange(256)))
    return bytes(changed)


@pytest.mark.parametrize(
    ("pattern", "rounds"),
    [
        ("torch/*.pt", 600),
        ("torch/*.pth", 300),
        ("torch/*.safetensors", 300),
        ("onnx/*.onnx", 500),
        ("keras/*.h5", 15),
        ("keras/*.keras", 60),
    ],
)
def test_damage_is_refused_in_words(pattern: str, rounds: int, tmp_path: Path) -> None:
    rng = random.Random(pattern)
    contents = [path.read_bytes() for path in sorted(FIXTURES.glob(pattern)) if path.stat().st_size < 60_000]
    path = tmp_path / f"m{Path(pattern).suffix}"
    hold_all(contents, rounds, rng, path, lambda: read_foreign(path))


def test_damage_to_our_own_file(tmp_path: Path) -> None:
    from streamlstm.model.importing import ImportOptions, import_model

    save(import_model(FIXTURES / "torch/names_rnn_head.pt", ImportOptions("carry"))[0], tmp_path / "good")
    path = tmp_path / "m"
    hold_all([(tmp_path / "good").read_bytes()], 300, random.Random(1), path, lambda: load(path))


def hold_all(contents: list[bytes], rounds: int, rng: random.Random, path: Path, read: Callable[[], object]) -> None:
    for _ in range(rounds):
        path.write_bytes(damaged(rng.choice(contents), rng))
        with contextlib.suppress(ModelFileError):
            read()
