"""What a restart finds in the snapshot topic, and what is made of it: decisions without doing.

`tags` has the tag of the newest whole chunk of every leaf that was found, `bad` what is wrong with the newest record of
a leaf, if anything; offsets are those of one input partition. `committed` is the group's offset: what lies below it has
been answered. The log holds the offsets from `first` up to `end`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from streamlstm.state.snapshot import ROOT, Header, Leaf

Kind = Literal["missing", "corrupt", "foreign", "model", "abi", "dtype", "ahead", "gap", "truncated"]

OTHER_MODEL: frozenset[Kind] = frozenset({"model", "abi", "dtype"})
"""Kinds for which `snapshot.on_model_change` says what is done: sound chunks, whose rows mean nothing here."""

_SPOILS_ALL: frozenset[Kind] = frozenset({*OTHER_MODEL, "foreign", "ahead", "truncated"})
"""Kinds after which no chunk is taken for what it says, not even a sound one."""

_BAD = {
    "foreign": "belong to another group, topic or partition: every group needs a snapshot topic of its own",
    "model": "are of another model",
    "abi": "have rows of another version of streamlstm",
    "dtype": "hold the state by another engine.state_dtype",
    "corrupt": "are damaged, and no older version is there",
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why the newest record of a leaf can't be used."""

    kind: Kind
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the state of a partition isn't exact."""

    kind: Kind
    partition: int
    message: str


@dataclass(frozen=True, slots=True)
class WarmStart:
    """How to go on although there are problems.

    The chunks of `kept` are exact, the streams of `lost` begin anew; together they cover every hash once. The events
    from `replay_from` up to `live_from` are replayed silently, those from there on answered.
    """

    kept: frozenset[Leaf]
    lost: frozenset[Leaf]
    replay_from: int
    live_from: int


def flaw_of(found: Header, expected: Header) -> Flaw | None:
    """Why a whole chunk is of no use to who expects another group, topic, partition, model, state_dtype, ABI or size of
    rows.
    """
    if (found.group, found.topic, found.partition) != (expected.group, expected.topic, expected.partition):
        ours = f"group {expected.group}, {expected.topic}-{expected.partition}"
        return Flaw("foreign", f"expected {ours}; found group {found.group}, {found.topic}-{found.partition}")
    if found.model != expected.model:
        return Flaw("model", f"expected {expected.model}, found {found.model}")
    if found.state_dtype != expected.state_dtype:
        return Flaw("dtype", f"expected {expected.state_dtype}, found {found.state_dtype}")
    if (found.abi, found.row_bytes) != (expected.abi, expected.row_bytes):
        ours = f"state ABI {expected.abi}, rows of {expected.row_bytes} bytes"
        return Flaw("abi", f"expected {ours}; found {found.abi}, rows of {found.row_bytes} bytes")
    return None


def holes(leaves: Iterable[Leaf]) -> list[Leaf]:
    """The largest leaves that cover, in order, every hash that `leaves` don't cover."""
    covered = set(leaves)
    inner = {above for leaf in covered for above in ancestors(leaf)}
    found, open_leaves = [], [ROOT]
    while open_leaves:
        leaf = open_leaves.pop()
        if leaf in covered:
            continue
        if leaf in inner:
            open_leaves += reversed(leaf.children())
        else:
            found.append(leaf)
    return found


def ancestors(leaf: Leaf) -> list[Leaf]:
    """The leaves that hold it, itself not among them, up to the root."""
    return [Leaf(depth, leaf.prefix >> (leaf.depth - depth)) for depth in range(leaf.depth)]


def problems(
    partition: int,
    tags: Mapping[Leaf, int],
    bad: Mapping[Leaf, Flaw],
    committed: int | None,
    first: int,
    end: int,
) -> list[Problem]:
    """Everything that keeps the state of a partition from being exact; nothing: chunks and a replay give it.

    A damaged newest version of a leaf is no problem where an older one is there: it only means more replay.
    """
    found: list[tuple[Kind, str]] = []
    for kind, what in _BAD.items():
        leaves = [leaf for leaf, flaw in bad.items() if flaw.kind == kind and (kind != "corrupt" or leaf not in tags)]
        if leaves:
            example = f"{leaves[0].key.decode()}: {bad[leaves[0]].message}"
            found.append((bad[leaves[0]].kind, f"{len(leaves)} of {_count(tags, bad)} chunks {what} ({example})"))
    unexplained = [hole for hole in holes(tags) if not any(hole.overlaps(leaf) for leaf in bad)]
    if not tags and not bad and committed is not None:
        found.append(("missing", f"there is no chunk, but the group has committed offset {committed}"))
    elif unexplained and (tags or bad):
        keys = ", ".join(hole.key.decode() for hole in unexplained[:3])
        found.append(("missing", f"no chunk covers {keys}, where {len(tags)} others are there"))
    return [Problem(kind, partition, text) for kind, text in found + _offset_problems(tags, committed, first, end)]


def _offset_problems(tags: Mapping[Leaf, int], committed: int | None, first: int, end: int) -> list[tuple[Kind, str]]:
    found: list[tuple[Kind, str]] = []
    newest = max(tags.values(), default=0)
    log = f"the log holds {first} to {end}"
    if committed is None:
        if tags:
            found.append(("ahead", f"the state is that of offset {newest}, but the group has no committed offset"))
        return found
    if max(newest, committed) > end:
        found.append(
            ("truncated", f"{log}, but the state is that of offset {newest} and the group has committed {committed}: "
             "the topic lost records or was made anew")
        )  # fmt: skip
    elif newest > committed:
        found.append(
            ("ahead", f"the state is that of offset {newest}, but the group has committed {committed}: "
             "its offset was moved back")
        )  # fmt: skip
    if (needed := min([*tags.values(), committed])) < first:
        found.append(("gap", f"the events from offset {needed} on are needed, but {log}"))
    return found


def warm_start(tags: Mapping[Leaf, int], found: Iterable[Problem], committed: int, first: int, end: int) -> WarmStart:
    """What to keep, and where to read from, when the policy is to go on.

    Nothing is answered twice: where the log ends below the committed offset, it goes on from the end. After a gap the
    whole log up to the committed offset is replayed, so that what was lost warms up.
    """
    kinds = {problem.kind for problem in found}
    live_from = min(max(committed, first), end)
    if kinds & _SPOILS_ALL:
        return WarmStart(frozenset(), frozenset({ROOT}), live_from, live_from)
    kept = frozenset(leaf for leaf, tag in tags.items() if tag >= first)
    lost = frozenset({*(tags.keys() - kept), *holes(tags)})
    replay_from = first if "gap" in kinds else min((tags[leaf] for leaf in kept), default=live_from)
    return WarmStart(kept, lost, replay_from, live_from)


def _count(tags: Mapping[Leaf, int], bad: Mapping[Leaf, Flaw]) -> int:
    return len(tags.keys() | bad.keys())
