"""A history: the events of many streams as columns, in memory, stream after stream."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.history.report import Report


@dataclass(frozen=True, slots=True)
class History:
    """N rows of F inputs of S streams. Rows [start[s], start[s + 1]) are those of stream s; each has one at least.

    `streams`: the ids, UTF-8, in the order in which they first appear in the sources. `partition` int32 [S]: the
    topic's; 0 for files. Streams of one id in two partitions are two, as in the daemon. `time` int64 [N], epoch ms,
    ascending within a stream and without duplicates (unless Rules.order says otherwise). `x` float64 [N, F], finite
    (unless missing inputs were let through, as NaN), unscaled. `interval` int64 [S], ms: the most frequent difference
    between successive times, 0 for a stream of one row (see kernels.grouping.survey). `arrival` int64 [N]: the number
    of the row among all that were read, from 0, where Rules.order keeps the rows as they came; else [0]. `offset` int64
    [N]: that of the row's record in its partition, where Rules.keep_offsets says so; else [0].
    """

    inputs: tuple[str, ...]
    streams: list[bytes]
    partition: NDArray[np.int32]
    start: NDArray[np.int64]
    time: NDArray[np.int64]
    x: NDArray[np.float64]
    interval: NDArray[np.int64]
    report: Report
    arrival: NDArray[np.int64]
    offset: NDArray[np.int64]
    resets: NDArray[np.int64]

    @property
    def rows(self) -> int:
        return len(self.time)

    def rows_of(self, stream: int) -> slice:
        return slice(int(self.start[stream]), int(self.start[stream + 1]))

    def name(self, stream: int) -> str:
        return self.streams[stream].decode()

    def tail_after(self, fraction: float) -> NDArray[np.int64]:
        """Where the tail of each stream begins behind its first `fraction` of rows, rounded down: int64 [S]."""
        lengths = np.diff(self.start)
        return self.start[:-1] + np.floor(lengths * fraction).astype(np.int64)

    def tail_from(self, time_ms: int) -> NDArray[np.int64]:
        """Where the rows of each stream from `time_ms` on begin: int64 [S]. The times have to ascend."""
        before = np.zeros(len(self.time) + 1, np.int64)  # how many of the rows up to here lie before the time
        np.cumsum(self.time < time_ms, out=before[1:])
        return self.start[:-1] + before[self.start[1:]] - before[self.start[:-1]]
