"""The configuration that Keras saves with a model -> the chain of its layers.

Only names and numbers of the JSON are compared; no class is looked up, nothing is imported or decoded. Sequential
models are chains by themselves; a functional graph is one only when every layer has one input tensor and every output
one reader.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from streamlstm.errors import ModelFileError
from streamlstm.model.fields import brief

MAX_KERAS_LAYERS = 256
_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")


@dataclass(frozen=True)
class KerasLayer:
    """One layer: its class, name and configuration; `key` is its group in a Keras 3 weights file (class name,
    counted).
    """

    where: str
    class_name: str
    name: str
    config: dict[str, Any]
    key: str = ""

    def flag(self, option: str) -> bool:
        """A boolean option, False when absent."""
        value = self.config.get(option, False)
        if not isinstance(value, bool):
            self.refuse(option, "wrong type", "true or false", brief(value))
        return value

    def dtype_policy(self) -> str:
        """Name of the layer's policy of numbers, as "mixed_float16"; "" when none is said."""
        match self.config.get("dtype"):
            case str(name) | {"config": {"name": str(name)}}:
                return name
        return ""

    def refuse(self, option: str, problem: str, expected: str, found: str) -> NoReturn:
        kind = f" ({self.class_name[:60]})" if self.class_name else ""
        place = f"{self.where}: layer {self.name[:60]}{kind}" + (f": {option}" if option else "")
        raise ModelFileError(place, problem, expected=expected, found=found)


def read_chain(document: dict[str, Any], where: str) -> tuple[KerasLayer, ...]:
    """Layers in the order of the signal, input layers included. Raises ModelFileError when the model is no plain
    chain.
    """
    class_name, config = document.get("class_name"), document.get("config")
    if class_name == "Sequential":
        entries = config.get("layers") if isinstance(config, dict) else config  # a bare list before Keras 2.2.3
        return tuple(_layers(entries, where))
    if class_name in ("Functional", "Model") and isinstance(config, dict):
        entries = config.get("layers")
        layers = {layer.name: layer for layer in _layers(entries, where)}
        if not isinstance(entries, list) or len(layers) != len(entries):
            raise ModelFileError(
                f"{where}: layers", "two layers of one name", expected="unique names", found="a duplicate"
            )
        return tuple(_ordered(layers, entries, config, where))
    raise ModelFileError(f"{where}: class_name", "model", expected="Sequential or Functional", found=brief(class_name))


def _layers(entries: object, where: str) -> list[KerasLayer]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KERAS_LAYERS:
        found = f"{len(entries)}" if isinstance(entries, list) else brief(entries)
        raise ModelFileError(f"{where}: layers", "layers", expected=f"1 to {MAX_KERAS_LAYERS} layers", found=found)
    counts: Counter[str] = Counter()
    layers: list[KerasLayer] = []
    for entry in entries:
        layer = read_layer(entry, where)
        key = snake_case(layer.class_name)
        layers.append(replace(layer, key=f"{key}_{counts[key]}" if counts[key] else key))
        counts[key] += 1
    return layers


def read_layer(entry: object, where: str) -> KerasLayer:
    """One layer of a configuration, proven to be Keras' own and not a registered or foreign class."""
    if not isinstance(entry, dict):
        raise ModelFileError(f"{where}: layers", "wrong entry", expected="an object", found=brief(entry))
    match entry:
        case {"class_name": str(class_name), "config": {"name": str(name)} as config}:
            layer = KerasLayer(where, class_name, name, config)
        case {"class_name": str(class_name)}:
            raise ModelFileError(f"{where}: {class_name[:60]}: config", "no name", expected="a name", found="none")
        case _:
            raise ModelFileError(
                f"{where}: layers", "wrong entry", expected="class_name and config", found=brief(entry)
            )
    module = entry.get("module", "keras.layers")
    if not isinstance(module, str) or not any(module == own or module.startswith(f"{own}.") for own in _MODULES):
        layer.refuse("module", "not a layer of Keras; nothing was imported", "keras.layers", brief(module))
    if entry.get("registered_name") not in (None, class_name):
        layer.refuse("registered_name", "a custom class", "none", brief(entry["registered_name"]))
    return layer


def snake_case(class_name: str) -> str:
    """As keras.src.utils.naming.to_snake_case: LSTM -> lstm, TimeDistributed -> time_distributed."""
    name = re.sub(r"\W+", "", class_name[:200])
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _ordered(layers: dict[str, KerasLayer], entries: list[Any], config: dict[str, Any], where: str) -> list[KerasLayer]:
    first, last = (
        _end(config.get("input_layers"), "input_layers", where),
        _end(config.get("output_layers"), "output_layers", where),
    )
    follower: dict[str, str] = {}
    for entry in entries:
        layer = layers[entry["config"]["name"]]
        source = _source(layer, entry.get("inbound_nodes"))
        if source is None:
            if layer.name != first:
                layer.refuse("inbound_nodes", "a second input", f"one input, {first}", "another")
            continue
        if source not in layers or source in follower:
            layer.refuse(
                "inbound_nodes",
                "not a chain",
                "each layer read by one other",
                f"{source[:60]} is read twice or unknown",
            )
        follower[source] = layer.name
    chain: list[KerasLayer] = []
    at: str | None = first
    while at is not None and at in layers and len(chain) <= len(layers):
        chain.append(layers[at])
        at = follower.get(at)
    if len(chain) != len(layers) or chain[-1].name != last:
        raise ModelFileError(
            f"{where}: inbound_nodes", "not a chain", expected=f"a chain from {first} to {last}", found="a graph"
        )
    return chain


def _end(value: object, field: str, where: str) -> str:
    """The one layer of input_layers or output_layers: [name, 0, 0] or [[name, 0, 0]]."""
    match value:
        case [str(name), 0, 0] | [[str(name), 0, 0]]:
            return name
    raise ModelFileError(f"{where}: {field}", "not a chain", expected="one layer", found=brief(value))


def _source(layer: KerasLayer, nodes: object) -> str | None:
    """Name of the layer whose output this one reads; None for an input layer."""
    match nodes:
        case []:
            return None
        case [[[str(name), 0, 0]]] | [[[str(name), 0, 0, {}]]]:  # Keras 2
            return name
        case [[[str(name), 0, 0, dict(options)]]] if not _matters(options):
            return name
        case [{"args": [{"config": {"keras_history": [str(name), 0, 0]}}], "kwargs": dict(options)}] if not _matters(
            options
        ):
            return name
    return layer.refuse("inbound_nodes", "not a chain", "one input tensor, called once", "something else")


def _matters(options: dict[str, Any]) -> bool:
    return any(value is not None for option, value in options.items() if option != "training")
