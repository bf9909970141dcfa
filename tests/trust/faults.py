"""What is done to the members, the broker and the network: scripts for tests.trust.stage."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.transport.fault_proxy import Api, Harm
from tests.transport.fault_proxy import Fault as NetFault
from tests.trust.stage import SESSION, TRANSACTION, Member, Script, Stage

AT_START = ("restoring", "chunk_loaded", "restored", "replaying", "live")
IN_TRANSACTION = (
    "polled",
    "answered",
    "encoded",
    "commit_begun",
    "produced",
    "offsets_sent",
    "ending",
    "ended",
    "settled",
    "snapshot_taken",
)
IN_REBALANCE = ("revoking", "revoked")
AT_END = ("draining", "drained")
POINTS = (*IN_TRANSACTION, *IN_REBALANCE, *AT_START, *AT_END)

REQUESTS = (
    Api.PRODUCE, Api.ADD_PARTITIONS, Api.ADD_OFFSETS, Api.TXN_OFFSET_COMMIT, Api.END_TXN, Api.INIT_PRODUCER_ID,
    Api.FIND_COORDINATOR, Api.FETCH, Api.OFFSET_FETCH, Api.LIST_OFFSETS, Api.JOIN_GROUP, Api.SYNC_GROUP, Api.HEARTBEAT,
    Api.METADATA,
)  # fmt: skip
ONLY_V1 = (Api.ADD_PARTITIONS, Api.ADD_OFFSETS)

FROZEN = SESSION + TRANSACTION
"""Longer than both time-outs: the others have taken over when a zombie wakes."""

BROKER_BACK = "broker back"
"""No fault, but from here on the recovery from a killed broker is the members' own."""

_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How one process of a member is to end: `kill`, `stop` (and go on) or `term`.

    With a point it strikes itself at the `nth` passage; without, we do it `after` seconds of being ready. `protocol` is
    that of its transactions.
    """

    action: str
    point: str = ""
    nth: int = 1
    after: float = 1.0
    protocol: str = "auto"

    @property
    def strike(self) -> str:
        return f"{self.action}:{self.point}:{self.nth}" if self.point else ""


def lives(stage: Stage, member: Member, plans: Iterable[Plan]) -> Script:
    """One process after the other; leaves the last one running, undisturbed."""
    for plan in plans:
        if member.alive and plan.point:  # a zombie that was let in again: it can't be told a point
            yield from _terminate(stage, member)
        if not member.alive:
            member.start(plan.strike, **{"commit.transaction_protocol": plan.protocol})
        yield from _end(stage, member, plan)
    if not member.alive:
        member.start()
    yield from steady(stage, member)


def steady(stage: Stage, member: Member) -> Script:
    """Until it is ready; started again as often as it says that a restart may cure it."""
    yield from stage.wait_ready(member)
    while not member.alive:
        member.ended()
        yield from stage.pause(0.5)
        member.start()
        yield from stage.wait_ready(member)


def _end(stage: Stage, member: Member, plan: Plan) -> Script:
    if plan.point:
        yield from _until_point(stage, member, plan)
    else:
        yield from stage.wait_ready(member)
        yield from stage.wait_until(lambda: not member.alive, plan.after)
    if not member.alive:
        code = member.ended()
        if plan.point and code == -signal.SIGKILL:
            stage.struck("kill at a point", plan.point, member.name, member.partitions)
        return
    if plan.action == "stop":
        yield from _freeze(stage, member, plan)
    elif plan.action == "term":
        yield from _terminate(stage, member)
    else:
        stage.unreached += bool(plan.point)
        member.signal(signal.SIGKILL)
        stage.struck("kill at random", "", member.name, member.partitions)
        member.ended()


def _until_point(stage: Stage, member: Member, plan: Plan) -> Script:
    """Until the member has struck itself, or has been ready for so long that it won't. For the end it is asked to."""
    struck = lambda: not member.alive or member.stopped  # noqa: E731
    yield from stage.wait_until(lambda: struck() or member.ready(), 90, f"{member.name} ready or at {plan.point}")
    if plan.point in AT_END and member.alive:
        yield from stage.wait_until(struck, plan.after)
        member.signal(signal.SIGTERM)
    yield from stage.wait_until(struck, _PATIENCE)


def _freeze(stage: Stage, member: Member, plan: Plan) -> Script:
    """A zombie: it has been given up by the group and by the broker, and then it goes on."""
    if not member.stopped:
        stage.unreached += bool(plan.point)
        member.signal(signal.SIGSTOP)
    stage.struck("zombie", plan.point or "anywhere", member.name, member.partitions)
    yield from stage.pause(FROZEN + 1.0)
    member.signal(signal.SIGCONT)
    yield from stage.pause(1.0)
    yield from stage.wait_ready(member)
    if not member.alive:
        member.ended()


def _terminate(stage: Stage, member: Member) -> Script:
    member.signal(signal.SIGTERM)
    stage.struck("planned restart", "", member.name, member.partitions)
    yield from stage.wait_until(lambda: not member.alive, 30, f"member {member.name} drained")
    if member.alive:
        member.signal(signal.SIGKILL)
    member.ended()


def storm(stage: Stage, names: Iterable[str], pause: float, enough: Callable[[int], bool]) -> Script:
    """Guests join and leave, and the partitions move to and fro, until it is `enough` of so many rounds."""
    rounds = 0
    guests = [stage.member(name) for name in names]
    while not enough(rounds):
        rounds += 1
        for guest in guests:
            guest.start()
            stage.joins += 1
            stage.struck("join", "", guest.name, stage.everything)
        for guest in guests:
            yield from stage.wait_ready(guest)
        yield from stage.pause(pause)
        for guest in guests:
            if guest.alive:
                guest.signal(signal.SIGTERM)
            stage.leaves += 1
            stage.struck("leave", "", guest.name, stage.everything)
        for guest in guests:
            yield from stage.wait_until(partial(_gone, guest), 30, f"{guest.name} gone")
            if guest.alive:
                guest.signal(signal.SIGKILL)
            guest.ended()
        yield from stage.pause(pause)


def _gone(member: Member) -> bool:
    return not member.alive


def broker_kill(stage: Stage, away: float, number: int = 1) -> Script:
    """kill -9 of a broker, and a start after `away` seconds."""
    stage.broker.kill(number)
    stage.struck("broker kill", str(number), "broker", stage.everything)
    yield from stage.pause(away)
    yield from stage.in_background(lambda: stage.broker.start(number))
    stage.struck(BROKER_BACK, str(number), "broker", stage.everything)


def network(stage: Stage, member: Member, api: Api, harm: Harm, skip: int = 0) -> Script:
    """One request of that type comes to harm on its way to the broker or back; given up when none is sent."""
    fault = NetFault(api, harm, skip)
    stage.proxy.faults.append(fault)
    yield from stage.wait_until(lambda: fault.times == 0, 30)
    if fault.times == 0:
        stage.struck(f"network: {harm.name.lower()}", api.name, member.name, member.partitions)
    else:
        stage.unreached += 1
    stage.proxy.faults = [other for other in stage.proxy.faults if other is not fault]


def drawn(stage: Stage, chance: random.Random) -> Iterator[Plan]:
    """Plans until it is over: every point in turn, between kills at random times, zombies and planned restarts."""
    while not stage.over:
        points = list(POINTS)
        chance.shuffle(points)
        for point in points:
            if stage.over:
                return
            nth = chance.randint(1, 4) if point in ("chunk_loaded", *IN_TRANSACTION) else 1
            protocol = chance.choice(["auto", "v1"])
            yield Plan("kill", point, nth, chance.uniform(0.2, 1.5), protocol)
            other = chance.random()
            if other < 0.12:
                at = chance.choice(["", "produced", "offsets_sent", "ending", "polled", "commit_begun"])
                yield Plan("stop", at, chance.randint(1, 40), chance.uniform(0.2, 3), protocol)
            elif other < 0.3:
                yield Plan("term", "", 1, chance.uniform(0.2, 4), protocol)
            else:
                yield Plan("kill", "", 1, chance.uniform(0.2, 4), protocol)


def broker_kills(stage: Stage, chance: random.Random) -> Script:
    """Every minute and a half or so, away for up to 8 seconds."""
    yield from stage.pause(chance.uniform(20, 60))
    while not stage.over:
        yield from broker_kill(stage, chance.uniform(0, 8), chance.randint(1, stage.brokers))
        yield from stage.pause(chance.uniform(50, 130))


def bad_network(stage: Stage, member: Member, chance: random.Random) -> Script:
    """Every few seconds one request of the member comes to harm; each type in turn, mostly before the reply."""
    while not stage.over:
        for api in chance.sample(REQUESTS, len(REQUESTS)):
            if stage.over:
                return
            harm = chance.choice([Harm.CUT_AFTER, Harm.CUT_AFTER, *Harm])
            yield from network(stage, member, api, harm, chance.randrange(3))
            yield from stage.pause(chance.uniform(1, 10))


def storms(stage: Stage, chance: random.Random) -> Script:
    """Every half minute one or two guests come and go, a few times."""
    while not stage.over:
        yield from stage.pause(chance.uniform(10, 40))
        guests = ["guest-1", "guest-2"][: chance.randint(1, 2)]
        most = chance.randint(1, 3)
        yield from storm(stage, guests, chance.uniform(0, 3), lambda rounds, most=most: rounds >= most)
