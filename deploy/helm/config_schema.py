"""Put the daemon's settings into the chart's values.schema.json, so that Helm refuses a wrong one before the start.

    python -m deploy.helm.config_schema

The rest of that file is kept by hand.
"""

import json
from pathlib import Path
from typing import Any

from streamlstm.config import Config

FILE = Path(__file__).parent / "streamlstm" / "values.schema.json"


def definitions() -> dict[str, Any]:
    """JSON schemas of every section, `Config` the outermost: names, types, bounds, choices and the sentences."""
    whole = Config.model_json_schema()
    sections: dict[str, Any] = whole.pop("$defs")
    return {name: _plain(section) for name, section in sorted({**sections, "Config": whole}.items())}


def _plain(schema: Any) -> Any:
    """Without what only says how Pydantic and `streamlstm init` name things."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _plain(each) for name, each in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key not in ("title", "example", "expected", "default")
    }


def main() -> None:
    schema = json.loads(FILE.read_text())
    schema["$defs"] = definitions()
    FILE.write_text(json.dumps(schema, indent=2) + "\n")


if __name__ == "__main__":
    main()
