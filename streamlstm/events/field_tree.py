"""Field paths as the tree of names that the compiled scanner walks, with a hash table over the names."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamlstm.events.batch import PADDING
from streamlstm.events.fields import FieldPaths, split_path
from streamlstm.kernels import text


@dataclass(frozen=True, slots=True)
class FieldTree:
    """`words` int64: first the nodes, `node_words` in all, beginning with the root; then for each node a hash table of
    its children with open addressing, -1 where free; then the names in UTF-8, from whole words on; then padding."""

    node_words: int
    words: NDArray[np.int64]


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
    name_words = [np.frombuffer(one + bytes(-len(one) % 8), np.int64) for one in texts]
    hashed = [text.name_words(np.frombuffer(one + bytes(PADDING), np.uint8).ctypes.data, len(one)) for one in texts]
    tables = [_hash_table([(child, int(hashed[child][1])) for child in node.children.values()]) for node in nodes]
    node_words = len(nodes) * text.NODE_WORDS
    table_at = node_words + np.cumsum([0, *map(len, tables)])
    name_at = table_at[-1] + np.cumsum([0, *map(len, name_words)])
    packed = np.zeros((len(nodes), text.NODE_WORDS), np.int64)
    packed[:, text.FIRST_WORD] = np.array([word for word, _ in hashed], np.uint64).view(np.int64)
    packed[:, text.LENGTH] = [len(one) for one in texts]
    packed[:, text.NAME] = name_at[:-1]
    packed[:, text.ROLE] = [node.role for node in nodes]
    packed[:, text.RANK] = [node.rank for node in nodes]
    packed[:, text.TABLE] = table_at[:-1]
    packed[:, text.TABLE_MASK] = [len(table) - 1 for table in tables]
    packed[:, text.PARENT] = [node.parent * text.NODE_WORDS for node in nodes]
    return FieldTree(
        node_words, np.concatenate([packed.ravel(), *tables, *name_words, np.zeros(PADDING // 8, np.int64)])
    )  # fmt: skip


def _hash_table(children: list[tuple[int, int]]) -> NDArray[np.int64]:
    """Nodes by their hashes in a table of a power of two slots, at most a quarter full: a search always ends."""
    size = 1 << (4 * len(children)).bit_length()
    table = np.full(size, -1, np.int64)
    for child, mixed in children:
        slot = mixed & (size - 1)
        while table[slot] != -1:
            slot = (slot + 1) & (size - 1)
        table[slot] = child * text.NODE_WORDS
    return table
