"""What of the chart must change with the package: its versions, its copies of defaults, its schema of settings."""

import json
import re
from pathlib import Path

from deploy.helm.config_schema import FILE, definitions
from streamlstm import __version__
from streamlstm.config import Config

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/streamlstm"
BASE = ROOT / "deploy/kustomize/base"


def test_the_schema_has_every_setting() -> None:
    assert json.loads(FILE.read_text())["$defs"] == definitions(), "run python -m deploy.helm.config_schema"


def test_versions_are_the_packages() -> None:
    assert re.findall(r'^(?:appVersion: "|version: )([^"\n]+)', (CHART / "Chart.yaml").read_text(), re.M) == [
        __version__,
        __version__,
    ]
    base = "".join(path.read_text() for path in BASE.glob("*.yaml"))
    said = re.findall(r'app\.kubernetes\.io/version: "(.+)"|image: streamlstm:(\S+)', base)
    assert len(said) == 8
    assert {label or tag for label, tag in said} == {__version__}


def test_defaults_in_the_templates_are_the_daemons() -> None:
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
    given = re.findall(r'dig "(\w+)" "(\w+)" ("[^"]+"|\d+|true|\(list "[^"]+"\)) (?:\.Values\.|\$)config', templates)
    assert len(given) >= 10
    defaults = Config()
    for section, name, text in given:
        default = getattr(getattr(defaults, section), name)
        written = json.loads(text.removeprefix("(list ").removesuffix(")"))
        assert written == (default[0] if isinstance(default, tuple) else default), f"{section}.{name}"
