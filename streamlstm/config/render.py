"""The commented configuration file that `streamlstm init` writes: every setting with its default.

A setting without a default stands commented out with an example.
"""

import json
import textwrap

from pydantic.fields import FieldInfo

from streamlstm.config.section import TEXT, Section, example, expected, table_of
from streamlstm.config.sections import Config

WIDTH = 110
SAID_BY_THE_VALUE = (TEXT, "true or false")

HEADER = """\
# streamlstm configuration: every setting with its default.
#
# Stronger than this file: environment variables (STREAMLSTM_COMMIT__INTERVAL_MS=10), and stronger still
# --set commit.interval_ms=10 on the command line. An unknown key is an error. `streamlstm check` tells all of them.
"""


def render_toml() -> str:
    """The whole file, as TOML 1.0; reading it back gives the default configuration."""
    tables = [(name, table_of(field)) for name, field in Config.model_fields.items()]
    return HEADER + "".join(_table(name, table) for name, table in tables if table)


def toml_value(value: object) -> str:
    """A setting's value as TOML. JSON's texts, integers, booleans and arrays of them are TOML as well."""
    return json.dumps(value, ensure_ascii=False)


def _table(path: str, table: type[Section]) -> str:
    lines = ["", *_comment(" ".join((table.__doc__ or "").split())), f"[{path}]"]
    inner = ""
    for name, field in table.model_fields.items():
        sub = table_of(field)
        if sub:
            inner += _table(f"{path}.{name}", sub)
        else:
            lines += _setting(name, field)
    return "\n".join(lines) + "\n" + inner


def _setting(name: str, field: FieldInfo) -> list[str]:
    accepts = expected(field).removeprefix("an integer from ").removeprefix("a number from ").removeprefix("one of ")
    comment = _comment(f"{field.description}" if accepts in SAID_BY_THE_VALUE else f"{field.description} ({accepts})")
    if field.default is None:
        return [*comment, f"# {name} = {toml_value(example(field))}"]
    return [*comment, f"{name} = {toml_value(field.default)}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
