"""Which chunks of a partition count, when the records of its snapshot topic are told newest first.

The newest sound chunk of every hash does; what it overlaps is older. An older version stands in for a damaged one. Once
every hash is covered, nothing further back in the log matters, however much of it compaction has left there.
"""

from streamlstm.state.recovery import Flaw, ancestors
from streamlstm.state.snapshot import HASH_BITS, ROOT, Leaf


class Newest:
    """`bad`: what is wrong with the newest record of a leaf; `stored`: leaves of which the topic holds a record."""

    def __init__(self) -> None:
        self.bad: dict[Leaf, Flaw] = {}
        self.stored: set[Leaf] = set()
        self._counted: set[Leaf] = set()
        self._above: set[Leaf] = set()
        self._gone: set[Leaf] = set()
        self._open = 1 << HASH_BITS

    @property
    def is_whole(self) -> bool:
        """Whether every hash is covered."""
        return self._open == 0

    def asks_for(self, leaf: Leaf) -> bool:
        """Whether the next record, which is a chunk of this leaf, counts if it's sound."""
        if leaf in self._gone:
            return False
        self.stored.add(leaf)
        is_old = leaf in self._above or leaf in self._counted or any(up in self._counted for up in ancestors(leaf))
        return not is_old

    def count(self, leaf: Leaf) -> None:
        """Its chunk was sound."""
        self._counted.add(leaf)
        self._above.update(ancestors(leaf))
        self._open -= 1 << (HASH_BITS - leaf.depth)

    def reject(self, leaf: Leaf, flaw: Flaw) -> None:
        """Its chunk was not."""
        self.bad.setdefault(leaf, flaw)

    def bury(self, leaf: Leaf) -> None:
        """The next record is the leaf's tombstone."""
        if leaf not in self._counted:
            self._gone.add(leaf)

    def unreadable(self, why: str) -> None:
        """The next records can't be read at all: nobody knows of which leaves."""
        if not self.is_whole:
            self.reject(ROOT, Flaw("corrupt", why))
