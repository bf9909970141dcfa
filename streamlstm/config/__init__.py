"""Configuration: one frozen, typed value, read once and handed down by section.

sections.py   the settings themselves: type, default, bounds and the sentence that explains each
security.py   TLS and SASL, in kafka-python's own names; passwords stay in their files
sources.py    file < environment < --set; every problem reported at once
checks.py     what must hold between settings
render.py     the commented file that `streamlstm init` writes
"""

from streamlstm.config.render import render_toml
from streamlstm.config.sections import (
    Commit,
    Config,
    DeadLetter,
    Engine,
    Events,
    Fetch,
    Input,
    Kafka,
    Log,
    Metrics,
    ModelSettings,
    Output,
    Snapshot,
    State,
)
from streamlstm.config.security import Security
from streamlstm.config.sources import load

__all__ = [
    "Commit",
    "Config",
    "DeadLetter",
    "Engine",
    "Events",
    "Fetch",
    "Input",
    "Kafka",
    "Log",
    "Metrics",
    "ModelSettings",
    "Output",
    "Security",
    "Snapshot",
    "State",
    "load",
    "render_toml",
]
