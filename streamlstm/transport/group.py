"""Membership of the consumer group, as the broker checks it when offsets are committed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """Who commits (KIP-447); `instance_id` is a static member's name."""

    group_id: str
    generation_id: int
    member_id: str
    instance_id: str | None
