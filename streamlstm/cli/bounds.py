"""Where in the input topic a range begins or ends, as the command line says it."""

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from streamlstm.service.audit_range import Bound

_OFFSETS = re.compile(r"[0-9]{1,9}:[0-9]{1,18}(,[0-9]{1,9}:[0-9]{1,18})*")
WHEN = "TIME|P:OFFSET,.."


def bound(context: click.Context, option: click.Parameter, text: str | None) -> "Bound":
    """A time, RFC 3339 or epoch milliseconds, or offsets by partition."""
    from streamlstm.events.times import parse_usual_time
    from streamlstm.service.audit_range import Bound

    if text is None:
        return Bound()
    if _OFFSETS.fullmatch(text):
        return Bound(offsets={int(p): int(offset) for p, offset in (each.split(":") for each in text.split(","))})
    time_ms = parse_usual_time(text)
    if time_ms is None:
        raise click.BadParameter(
            f"expected a time such as 2026-01-31T12:00:00Z or 1769860800000 (milliseconds), or offsets such as "
            f"0:1200,1:990 (partition:offset); found {text!r}"
        )
    return Bound(time_ms)
