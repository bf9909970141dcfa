"""Keras files whose configuration or HDF5 leads elsewhere, lies, or breaks the library."""

import contextlib
import copy
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model import hdf5_child, hdf5_file
from streamlstm.model.forward import run
from streamlstm.model.importing import read_foreign
from streamlstm.model.keras_config import read_chain, snake_case
from tests.model.keras_writing import FIXTURES, layer, members, refused, write

CHANGES: dict[str, tuple[str, str, Any]] = {
    "activation": ("LSTM", "activation", "relu"),
    "no activation": ("LSTM", "activation", None),
    "an activation object": ("LSTM", "activation", {"class_name": "function", "config": "tanh"}),
    "recurrent activation": ("LSTM", "recurrent_activation", "hard_sigmoid"),
    "backwards": ("LSTM", "go_backwards", True),
    "return_state": ("LSTM", "return_state", True),
    "units": ("LSTM", "units", 51),
    "no bias": ("LSTM", "use_bias", False),
    "a new option": ("LSTM", "peephole", True),
    "a flag of another type": ("LSTM", "go_backwards", "no"),
    "a head activation": ("Dense", "activation", "tanh"),
    "head units": ("Dense", "units", 2),
    "a low-rank head": ("Dense", "lora_rank", 4),
    "input rank": ("InputLayer", "batch_shape", [None, 1]),
    "input size": ("InputLayer", "batch_shape", [None, None, 2]),
    "input shape of another type": ("InputLayer", "batch_shape", [None, None, "1"]),
    "a sparse input": ("InputLayer", "sparse", True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_option_is_refused(what: str, tmp_path: Path) -> None:
    config, weights = members("seed_keras.keras")
    class_name, option, value = CHANGES[what]
    layer(config, class_name)["config"][option] = value
    refused(write(tmp_path / "m.keras", config, weights))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("module", "os"),
        ("module", "keras_evil"),
        ("module", 3),
        ("registered_name", "Custom>LSTM"),
        ("class_name", "CuDNNLSTM"),
    ],
)
def test_a_layer_that_is_not_keras_own(field: str, value: object, tmp_path: Path) -> None:
    config, weights = members("seed_keras.keras")
    layer(config, "LSTM")[field] = value
    refused(write(tmp_path / "m.keras", config, weights))


def test_layers_at_the_wrong_place(tmp_path: Path) -> None:
    config, weights = members("seed_keras.keras")
    for order in ([0, 2, 1], [0, 1], [0, 2], [1, 1, 2], [0, 1, 2, 2], [0, 1, 1, 2]):
        changed = copy.deepcopy(config)
        changed["config"]["layers"] = [config["config"]["layers"][k] for k in order]
        refused(write(tmp_path / "m.keras", changed, weights))


def functional(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> str:
    config, weights = members("functional.keras")
    change(config["config"])
    return refused(write(tmp_path / "m.keras", config, weights))


def test_a_graph_that_is_no_chain(tmp_path: Path) -> None:
    def history(config: dict[str, Any], at: int) -> list[Any]:
        (node,) = config["layers"][at]["inbound_nodes"]
        found: list[Any] = node["args"][0]["config"]["keras_history"]
        return found

    def second_output(config: dict[str, Any]) -> None:
        config["output_layers"] = [["pred", 0, 0], ["memory", 0, 0]]

    def other_tensor(config: dict[str, Any]) -> None:
        history(config, 2)[2] = 1

    def loop(config: dict[str, Any]) -> None:
        history(config, 1)[0] = "pred"

    def skipped(config: dict[str, Any]) -> None:
        history(config, 2)[0] = "ts"

    def called_twice(config: dict[str, Any]) -> None:
        config["layers"][1]["inbound_nodes"] *= 2

    def with_state(config: dict[str, Any]) -> None:
        config["layers"][1]["inbound_nodes"][0]["kwargs"]["initial_state"] = ["ts"]

    def same_name(config: dict[str, Any]) -> None:
        config["layers"].append(config["layers"][2])

    def no_input(config: dict[str, Any]) -> None:
        config["input_layers"] = []

    for change in (second_output, other_tensor, loop, skipped, called_twice, with_state, same_name, no_input):
        functional(change, tmp_path)


def test_any_node_of_a_configuration_may_be_anything() -> None:
    """Random nodes replaced by odd values: always a chain or a ModelFileError."""
    odd = (None, True, -1, 1e308, 10**30, "", "x" * 5000, [], {}, [[]], [None], {"class_name": 1}, {"config": {}})
    rng = random.Random(2)
    for file in ("functional.keras", "seed_keras2.keras"):
        original, _ = members(file)
        for _ in range(1500):
            config = copy.deepcopy(original)
            node: Any = config
            while True:
                keys = list(node) if isinstance(node, dict) else list(range(len(node)))
                key = rng.choice(keys)
                if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.2:
                    node[key] = rng.choice(odd)
                    break
                node = node[key]
            with contextlib.suppress(ModelFileError):
                read_chain(config, "m")


def test_the_names_of_groups_are_keras_own() -> None:
    names = {"LSTM": "lstm", "Dense": "dense", "TimeDistributed": "time_distributed", "InputLayer": "input_layer"}
    assert {name: snake_case(name) for name in names} == names


def test_more_than_ten_layers_keep_their_order(tmp_path: Path) -> None:
    """lstm_10 comes before lstm_2 in the alphabet, not in the model."""
    rng = np.random.default_rng(3)
    path = tmp_path / "m.weights.h5"
    kernels = [rng.standard_normal((2, 8)).astype(np.float32) for _ in range(12)]
    with h5py.File(path, "w") as file:
        for k, kernel in enumerate(kernels):
            group = file.create_group(f"layers/lstm{f'_{k}' if k else ''}/cell/vars")
            for name, array in (("0", kernel), ("1", rng.standard_normal((2, 8))), ("2", np.zeros(8))):
                group[name] = array.astype(np.float32)
        file["layers/dense/vars/0"] = np.ones((2, 1), np.float32)
        file["layers/dense/vars/1"] = np.ones(1, np.float32)
    layers = read_foreign(path).parameters.layers
    assert all(np.array_equal(found.weight_ih, kernel.T) for found, kernel in zip(layers, kernels, strict=True))


def test_big_endian_doubles_and_windows_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    expected = read_foreign(FIXTURES / "seed_keras.weights.h5").parameters
    with h5py.File(FIXTURES / "seed_keras.weights.h5") as good, h5py.File(path, "w") as file:
        for name in ("lstm/cell", "dense"):
            for number, dataset in good[f"layers/{name}/vars"].items():
                flat = file.require_group(f"layers\\{name}\\vars".replace("/", "\\"))
                flat.create_dataset(number, data=dataset[()].astype(">f8"))
    x = np.ones((1, 3, 1))
    assert np.array_equal(run(read_foreign(path).parameters, x).y, run(expected, x).y)


def soft_link(file: h5py.File) -> None:
    del file["layers/lstm/cell/vars/0"]
    file["layers/lstm/cell/vars/0"] = h5py.SoftLink("/layers/dense/vars/0")


def external_link(file: h5py.File) -> None:
    del file["layers/dense"]
    file["layers/dense"] = h5py.ExternalLink("/etc/hostname", "/")


def hard_loop(file: h5py.File) -> None:
    file["layers/lstm/again"] = file["layers"]


def virtual(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    layout = h5py.VirtualLayout((50, 1), "f4")
    layout[...] = h5py.VirtualSource("/etc/hostname", "x", (50, 1))
    file["layers/dense/vars"].create_virtual_dataset("0", layout)


def external_bytes(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (50, 1), "f4", external=[("/etc/passwd", 0, 200)])


def gzip_bomb(file: h5py.File) -> None:
    del file["layers/lstm/cell/vars/1"]
    file["layers/lstm/cell/vars"].create_dataset("1", (4096, 16384), "f4", chunks=(64, 16384), compression="gzip")
    file["layers/lstm/cell/vars/1"][...] = 0.0


def unwritten(file: h5py.File) -> None:
    del file["layers/lstm/cell/vars/1"]
    file["layers/lstm/cell/vars"].create_dataset("1", (50, 200), "f4")


def plugin_filter(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", data=np.ones((50, 1), "f4"), compression="lzf")


def replaced(value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = value

    return change


def extra(path: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[path] = np.ones(3, np.float32)

    return change


def deep(file: h5py.File) -> None:
    file.create_group("layers/" + "/".join("g" * 40))


def many(file: h5py.File) -> None:
    group = file.create_group("layers/many")
    for k in range(17_000):
        group.create_group(str(k))


HOSTILE_HDF5 = {
    "soft link": soft_link,
    "external link": external_link,
    "hard link loop": hard_loop,
    "virtual dataset": virtual,
    "external bytes": external_bytes,
    "gzip bomb": gzip_bomb,
    "never written": unwritten,
    "lzf filter": plugin_filter,
    "integers": replaced(np.ones((50, 1), np.int32)),
    "complex": replaced(np.ones((50, 1), np.complex64)),
    "text": replaced("50"),
    "objects": replaced(np.array([b"a", b"b"], dtype=h5py.string_dtype())),
    "a compound": replaced(np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])),
    "a scalar": replaced(np.float32(1)),
    "NaN": replaced(np.full((50, 1), np.nan, np.float32)),
    "long doubles": replaced(np.ones((50, 1), np.longdouble)),
    "nothing": replaced(h5py.Empty("f4")),
    "another shape": replaced(np.ones((49, 1), np.float32)),
    "an extra tensor": extra("layers/lstm/cell/vars/3"),
    "an extra layer": extra("layers/layer_normalization/vars/0"),
    "a tensor of no layer": extra("more/0"),
    "a reserved name": extra("@groups"),
    "deep groups": deep,
    "many groups": many,
}


@pytest.mark.parametrize("what", HOSTILE_HDF5)
def test_hdf5_that_leads_elsewhere_or_lies(what: str, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    path.write_bytes((FIXTURES / "seed_keras.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        HOSTILE_HDF5[what](file)
    message = refused(path)
    assert "crash" not in message or what == "long doubles", message


def test_a_layer_without_weights_is_not_overlooked(tmp_path: Path) -> None:
    """Rescaling, Masking or Reshape leave an empty group only."""
    path = tmp_path / "m.weights.h5"
    path.write_bytes((FIXTURES / "seed_keras.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.create_group("layers/rescaling/vars")
    assert "rescaling" in refused(path)


@pytest.mark.parametrize("value", [b"\xff\xfe", "[]", "{", '{"class_name": "Sequential"}', "3", '{"a": 1, "a": 2}'])
def test_a_model_config_that_is_none(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes((FIXTURES / "seed_keras_legacy.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = value
    refused(path)


def test_attributes_that_repeat_a_text_past_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file["padding"] = np.zeros(1 << 20, np.uint8)
        file.attrs.create("layer_names", ["x" * 60_000] * 500, dtype=h5py.string_dtype())
    assert "layer_names" in refused(path)


@pytest.mark.parametrize("at", range(40, 2000, 280))
def test_damage_to_the_library_stays_in_the_child(at: int, tmp_path: Path) -> None:
    content = bytearray((FIXTURES / "no_unit_forget_bias_legacy.h5").read_bytes())
    content[at : at + 40] = bytes(255 - k for k in range(40))
    path = tmp_path / "m.h5"
    path.write_bytes(content)
    with contextlib.suppress(ModelFileError):
        read_foreign(path)


def test_a_child_that_dies_or_hangs_is_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes((FIXTURES / "seed_keras.weights.h5").read_bytes())
    script = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script))
    for line, word in (("kill -SEGV $$", "crash"), ("exec sleep 60", "no end"), ("echo nonsense", "header length")):
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        monkeypatch.setattr(hdf5_file, "MAX_SECONDS", 1.0)
        assert word in refused(path)


def test_without_h5py_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_file, "find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match="pip install"):
        read_foreign(FIXTURES / "seed_keras.keras")


def test_the_child_reads_from_memory_as_from_a_file() -> None:
    path = FIXTURES / "seed_keras_legacy.h5"
    assert hdf5_child.contents(path, "m") == hdf5_child.contents(path.read_bytes(), "m")
