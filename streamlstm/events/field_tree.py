"""Field paths as the tree of names that the compiled scanner walks, with a hash table over the names."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import PADDING
from streamlstm.events.fields import FieldPaths, split_path
from streamlstm.kernels import text


@dataclass(frozen=True, slots=True)
class FieldTree:
    """`nodes` int64[n, text.NODE_COLUMNS], node 0 being the root; `names` their UTF-8, padded; `table` int64: per node
    with children a part with open addressing that holds them, -1 where free."""

    nodes: NDArray[np.int64]
    names: NDArray[np.uint8]
    table: NDArray[np.int64]


@dataclass(slots=True)
class _Node:
    name: str
    parent: int
    role: int = text.INNER
    rank: int = 0
    children: dict[str, int] = field(default_factory=dict)


def field_tree(fields: FieldPaths) -> FieldTree:
    """The tree of `fields`. A name that is to be two things at once is marked for the slower reader."""
    nodes = [_Node("", 0)]
    if fields.stream_source != "key":
        for rank, path in enumerate(fields.stream):
            _add(nodes, path, text.STREAM, rank)
    for rank, path in enumerate(fields.time):
        _add(nodes, path, text.TIME, rank)
    alone = fields.value if len(fields.inputs) == 1 else ()
    for rank, path in enumerate(alone):
        _add(nodes, path, text.VALUE, rank)
    values = _add(nodes, fields.values, text.VALUES, len(alone))
    if nodes[values].role == text.VALUES:
        for rank, name in enumerate(fields.inputs):
            _add_child(nodes, values, name, text.INPUT, rank)
    return _pack(nodes)


def _add(nodes: list[_Node], path: str, role: int, rank: int) -> int:
    """Add the node at the end of `path`, and those on the way; returns its index."""
    node = 0
    names = split_path(path)
    for name in names[:-1]:
        node = _add_child(nodes, node, name, text.INNER, 0)
    return _add_child(nodes, node, names[-1], role, rank)


def _add_child(nodes: list[_Node], parent: int, name: str, role: int, rank: int) -> int:
    existing = nodes[parent].children.get(name)
    if existing is None:
        nodes[parent].children[name] = len(nodes)
        nodes.append(_Node(name, parent, role, rank))
        return len(nodes) - 1
    if role != text.INNER or nodes[existing].role != text.INNER:
        nodes[existing].role = text.HAND_ON
    return existing


def _pack(nodes: list[_Node]) -> FieldTree:
    texts = [node.name.encode() for node in nodes]
    ends = np.cumsum([len(one) for one in texts])
    names = np.frombuffer(b"".join(texts) + bytes(PADDING), np.uint8)
    packed = np.zeros((len(nodes), text.NODE_COLUMNS), np.int64)
    hashes = []
    for i, node in enumerate(nodes):
        at = int(ends[i]) - len(texts[i])
        word, mixed = text.name_words(names.ctypes.data + at, len(texts[i]))
        hashes.append(int(mixed))
        packed[i, text.FIRST_WORD] = np.uint64(word).view(np.int64)
        packed[i, text.LENGTH] = len(texts[i])
        packed[i, text.NAME_AT] = at
        packed[i, text.ROLE] = node.role
        packed[i, text.RANK] = node.rank
        packed[i, text.PARENT] = node.parent
    table: list[int] = []
    for i, node in enumerate(nodes):
        part = _hash_part(list(node.children.values()), hashes)
        packed[i, text.TABLE_AT] = len(table)
        packed[i, text.TABLE_MASK] = len(part) - 1
        table += part
    return FieldTree(packed, names, np.array(table, np.int64))


def _hash_part(children: list[int], hashes: list[int]) -> list[int]:
    """An open-addressing table, at most a quarter full, so that a search always ends."""
    size = 1 << (4 * len(children)).bit_length()
    part = [-1] * size
    for child in children:
        slot = hashes[child] & (size - 1)
        while part[slot] != -1:
            slot = (slot + 1) & (size - 1)
        part[slot] = child
    return part
