"""Writes the dashboards: `python -m deploy.grafana.build` makes deploy/grafana/dashboards/*.json anew.

They are Grafana's classic JSON (Grafana 11.6 and later), made with its own builder, and checked in.
"""

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.forecast_quality import forecast_quality
from deploy.grafana.operations import operations

FOLDER = Path(__file__).with_name("dashboards")


def dashboards() -> dict[Path, str]:
    """The files and what belongs in them."""
    return {
        FOLDER / "operations.json": _text(operations()),
        FOLDER / "forecast-quality.json": _text(forecast_quality()),
    }


def _text(made: build.Dashboard) -> str:
    """Panels are numbered in their order: links to one of them stay what they are."""
    built = made.build()
    for number, panel in enumerate(built.panels or [], 1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=1) + "\n"


if __name__ == "__main__":
    for path, text in dashboards().items():
        path.write_text(text)
