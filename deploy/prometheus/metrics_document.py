"""Writes docs/metrics.md from the table in the code: `python -m deploy.prometheus.metrics_document`."""

from collections.abc import Iterator
from pathlib import Path

from streamlstm.service.metrics import SECTIONS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

INTRODUCTION = """\
# Metrics

What `/metrics` says, made from the code by `make docs/metrics.md`. Prometheus adds `job` and `instance`; nothing has a
stream in a label, so that the number of series doesn't grow with the streams: about 240 and 7 for each partition of a
replica. Alerts are in [deploy/prometheus](../deploy/prometheus/rules/streamlstm-alerts.yml), each with a page in
[runbooks](runbooks).

Ages of records (`streamlstm_freshness_seconds`, `streamlstm_lag_seconds`) go by their timestamps. Where producers set
those to the times of their events, which may be long past, set `message.timestamp.type=LogAppendTime` on the input
topic, or don't use the alerts that go by them.
"""

PROCESS = """\
Of the Python client come `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_open_fds`, `process_max_fds` and `process_start_time_seconds`.
"""


def document() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_sections(), PROCESS])


def _sections() -> Iterator[str]:
    for title, rows in SECTIONS.items():
        yield f"## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|"
        for row in rows:
            labels = ", ".join(f"`{label}`" for label in row.labels)
            yield f"| `{row.name}` | {row.kind} | {labels} | {row.help} |"
        yield ""


if __name__ == "__main__":
    DOCUMENT.write_text(document())
