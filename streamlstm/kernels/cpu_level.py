"""The levels of x86-64 (its psABI, section 3.1.1), for which kernels are compiled.

A level is a promise of instructions, so code for one runs on every CPU that has them, whoever made it and whenever. The
kernels ask for no more than AVX-512 as v4 has it, so compiling for the very CPU would gain nothing; but its code could
be used on no other one, and an image or a package could not bring kernels along.
"""

from collections.abc import Collection

BASELINE = "x86-64"
LEVELS = {
    "x86-64-v2": ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    "x86-64-v4": ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
}
"""What each level adds to the one before, in LLVM's words; a level's name is LLVM's name of a CPU that has just it."""


def highest_level(features: Collection[str]) -> str:
    """The highest level all of whose features, and those of the levels below, are among `features`."""
    found = BASELINE
    for level, added in LEVELS.items():
        if not set(added) <= set(features):
            break
        found = level
    return found
