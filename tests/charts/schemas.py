"""Schemas for kubeconform, made from what registries have: Kubernetes' own from PyPI's kubernetes-validate (its strict
ones: an unknown field is an error), and those of custom resources from the CRDs in their operators' modules.

    python -m tests.charts.schemas CRDS FOLDER

CRDS holds CRDs as YAML. FOLDER gets one folder for each version of Kubernetes, as kubeconform names them, with every
schema whole in one file.
"""

import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

KINDS = (
    "configmap-v1", "networkpolicy-networking-v1", "poddisruptionbudget-policy-v1", "service-v1", "serviceaccount-v1",
    "statefulset-apps-v1",
)  # fmt: skip
DEFINITION = "#/$defs/"
METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

Schema = dict[str, Any]


def main(crds: Path, folder: Path) -> None:
    kubernetes = files("kubernetes_validate").joinpath("kubernetes-json-schema")
    custom = dict(custom_schema(path) for path in sorted(crds.glob("*.yaml")))
    for source in kubernetes.iterdir():
        if not (found := re.fullmatch(r"v(\d+\.\d+\.\d+)-local-strict", source.name)):
            continue
        target = folder / f"v{found[1]}-standalone-strict"
        target.mkdir(parents=True, exist_ok=True)
        definitions = json.loads(source.joinpath("_definitions.json").read_text())["$defs"]
        for kind in KINDS:
            schema = json.loads(source.joinpath(f"{kind}.json").read_text())
            (target / f"{kind}.json").write_text(json.dumps(_whole(schema, definitions)))
        for kind, schema in custom.items():
            (target / f"{kind}.json").write_text(json.dumps(_whole(schema, definitions)))


def _whole(schema: Schema, definitions: Schema) -> Schema:
    """The schema with the definitions that it needs, and no address that could be looked up elsewhere."""
    text = json.dumps(schema).replace("/api/_definitions.json#", "#")
    needed: Schema = {}
    names = _references(text)
    while names:
        name = names.pop()
        needed[name] = definitions[name]
        names |= _references(json.dumps(needed[name])) - needed.keys()
    whole: Schema = {**json.loads(text), "$defs": needed}
    whole.pop("$id", None)
    return whole


def _references(text: str) -> set[str]:
    return set(re.findall(rf'"\$ref": "{re.escape(DEFINITION)}([^"]+)"', text))


def custom_schema(path: Path) -> tuple[str, Schema]:
    """Its name as kubeconform asks for it, and the schema of a CRD's newest stored version."""
    spec = yaml.safe_load(path.read_text())["spec"]
    version = next(each for each in spec["versions"] if each["storage"])
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"$ref": DEFINITION + METADATA}
    name = f"{spec['names']['kind'].lower()}-{spec['group'].split('.')[0]}-{version['name']}"
    return name, schema


def closed(schema: Any) -> Any:
    """A structural schema in which a field that isn't named is an error, as the API server warns of or drops it."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: closed(each) for name, each in value.items()} if key == "properties" else closed(value)
        for key, value in schema.items()
    }
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and "type" in schema and not free:
        made["additionalProperties"] = False
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
