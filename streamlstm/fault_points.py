"""Named moments of the protocols at which tests/trust kills the process. In the product they do nothing."""

from collections.abc import Callable


def _nothing(name: str) -> None:
    """Go on."""


hook: Callable[[str], None] = _nothing
"""Replaced by tests/trust/member.py, which runs the daemon in a process of its own; nothing else may set it."""


def reach(name: str) -> None:
    """Say that the moment `name` has come."""
    hook(name)
