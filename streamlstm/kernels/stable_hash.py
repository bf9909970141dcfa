"""The hash of a stream's key that is the same on every machine, in every version, for ever: snapshots are cut by it.

SipHash-2-4 (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF") of the key's bytes, with the key of the
paper's test vectors: bytes 00, 01, ... 0f. It guards nothing, but a hundred keys of one hash, which would make a chunk
that can't be split, are out of reach; the table of kernels/hash_table.py has a secret hash of its own.
"""

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import load_word, signed

_KEY_0 = np.uint64(0x0706050403020100)
_KEY_1 = np.uint64(0x0F0E0D0C0B0A0908)
_INITIAL_0 = np.uint64(0x736F6D6570736575)
_INITIAL_1 = np.uint64(0x646F72616E646F6D)
_INITIAL_2 = np.uint64(0x6C7967656E657261)
_INITIAL_3 = np.uint64(0x7465646279746573)
_ONE = np.uint64(1)

TOMBSTONE, REPLAYED = np.uint8(14), np.uint8(18)  # events.batch.Reason; a test holds them together

Int64s = NDArray[np.int64]
Words = NDArray[np.uint64]


@embedded
def _rotated(word: np.uint64, by: int) -> np.uint64:
    return np.uint64((word << np.uint64(by)) | (word >> np.uint64(64 - by)))


@embedded
def _round(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    a += b
    c += d
    b = _rotated(b, 13) ^ a
    d = _rotated(d, 16) ^ c
    a = _rotated(a, 32)
    c += b
    a += d
    b = _rotated(b, 17) ^ c
    d = _rotated(d, 21) ^ a
    c = _rotated(c, 32)
    return a, b, c, d


@compiled
def stable_hash(at: int, length: int) -> np.uint64:
    """Hash of the bytes at an address; a word may be read past their end."""
    a, b, c, d = _INITIAL_0 ^ _KEY_0, _INITIAL_1 ^ _KEY_1, _INITIAL_2 ^ _KEY_0, _INITIAL_3 ^ _KEY_1
    last = np.uint64(length) << np.uint64(56)
    rest = length & 7
    if rest > 0:
        last |= load_word(at + length - rest) & ((_ONE << np.uint64(8 * rest)) - _ONE)
    for i in range(0, length - rest + 8, 8):
        word = last
        if i < length - rest:
            word = load_word(at + i)
        d ^= word
        a, b, c, d = _round(a, b, c, d)
        a, b, c, d = _round(a, b, c, d)
        a ^= word
    c ^= np.uint64(0xFF)
    for _ in range(4):
        a, b, c, d = _round(a, b, c, d)
    return np.uint64(a ^ b ^ c ^ d)


@embedded
def interval_of(word: np.uint64, firsts: Words) -> int:
    """The last i with firsts[i] <= word, -1 for none; firsts ascend."""
    low, high = 0, firsts.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if firsts[middle] <= word:
            low = middle + 1
        else:
            high = middle
    return low - 1


@compiled("void(uint8[::1], int64[::1], int64[::1], uint64[::1])")
def stable_hashes(text: NDArray[np.uint8], at: Int64s, length: Int64s, hashes: Words) -> None:
    """Write the hash of every span to hashes uint64 [n]. `text` is padded (events.batch.PADDING)."""
    base = signed(text.ctypes.data)
    for i in range(hashes.shape[0]):
        hashes[i] = stable_hash(base + at[i], length[i])


@compiled("int64(uint8[::1], int64, int64, int64[::1], int64[::1], int64[::1], uint8[::1], uint64[::1], int64[::1])")
def mark_replayed(
    payload: NDArray[np.uint8],
    start: int,
    stop: int,
    stream_at: Int64s,
    stream_len: Int64s,
    offset: Int64s,
    reason: NDArray[np.uint8],
    firsts: Words,
    tags: Int64s,
) -> int:
    """Take the rows of [start, stop) that their leaf holds already out of the way; returns how many there are.

    Leaf i covers the hashes from firsts[i] up to the next leaf, firsts[0] = 0, and holds the events below tags[i]. A
    row without a reason gets `replayed`; a tombstone names no stream any more.
    """
    base = signed(payload.ctypes.data)
    held = 0
    for i in range(start, stop):
        if reason[i] == 0 or (reason[i] == TOMBSTONE and stream_len[i] > 0):
            leaf = interval_of(stable_hash(base + stream_at[i], stream_len[i]), firsts)
            if offset[i] < tags[leaf]:
                if reason[i] == 0:
                    reason[i] = REPLAYED
                else:
                    stream_len[i] = 0
                held += 1
    return held
