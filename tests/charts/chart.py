"""The chart and the kustomize base as the real tools make them, and what a pod of them would find in its files."""

import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from streamlstm.config.sources import settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/streamlstm"
KUSTOMIZE = ROOT / "deploy/kustomize"
TOOLS = ROOT / ".cache/charts"
CASES = {path.stem: path for path in sorted((Path(__file__).parent / "values").glob("*.yaml"))}
SCHEMAS = TOOLS / "schemas/{{.NormalizedKubernetesVersion}}-standalone{{.StrictSuffix}}"

# From the chart's kubeVersion on: all that the schemas' package has.
VERSIONS = sorted(
    (path.name.split("-")[0][1:] for path in (TOOLS / "schemas").glob("v*")), key=lambda name: int(name.split(".")[1])
)
SUPPORTED = [version for version in VERSIONS if int(version.split(".")[1]) >= 27]

HAS_CUDA = "cuda" in get_args(settings()["engine.backend"].annotation)

Manifest = dict[str, Any]
Values = Mapping[str, Any]


def run(tool: str, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOOLS / "bin" / tool), *arguments], input=given, capture_output=True, text=True, check=False, timeout=240
    )


def helm(command: str, values: Path | Values, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm template` or `helm lint` of the chart, as the release `streamlstm`."""
    return _helm(command, values.read_text() if isinstance(values, Path) else json.dumps(values), arguments)


@cache
def _helm(command: str, text: str, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    release = ["streamlstm"] if command == "template" else []
    return run("helm", command, *release, str(CHART), "--namespace", "streams", "-f", "-", *arguments, given=text)


def lenient(case: str) -> list[str]:
    """A build that doesn't know CUDA refuses the case by its schema; what the templates make of it is judged still."""
    return ["--skip-schema-validation"] if case == "gpu" and not HAS_CUDA else []


def rendered(values: Path | Values, *arguments: str) -> str:
    done = helm("template", values, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifests(text: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(text) if each]


def case_manifests(case: str) -> list[Manifest]:
    """What the chart makes of one of the cases."""
    return manifests(rendered(CASES[case], *lenient(case)))


def one(documents: list[Manifest], kind: str) -> Manifest:
    found = [each for each in documents if each["kind"] == kind]
    assert len(found) == 1, f"{kind}: found {len(found)}"
    return found[0]


def kubeconform(text: str, version: str) -> list[dict[str, Any]]:
    """What kubeconform says of each manifest, strict and without any schema but ours."""
    location = f"{SCHEMAS}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    done = run(
        "kubeconform", "-strict", "-verbose", "-output", "json", "-kubernetes-version", version,
        "-schema-location", location, given=text,
    )  # fmt: skip
    assert done.stdout, done.stderr
    resources: list[dict[str, Any]] = json.loads(done.stdout)["resources"]
    return resources


def assert_valid(text: str, version: str) -> None:
    verdicts = kubeconform(text, version)
    assert len(verdicts) == len(manifests(text))
    assert [each for each in verdicts if each["status"] != "statusValid"] == [], version


def containers(documents: list[Manifest]) -> Iterator[Manifest]:
    spec = one(documents, "StatefulSet")["spec"]["template"]["spec"]
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def daemon_container(documents: list[Manifest]) -> Manifest:
    return next(each for each in containers(documents) if each["name"] == "streamlstm")


def pod_environment(documents: list[Manifest]) -> dict[str, str]:
    """The variables of the first member's container, as the kubelet sets them."""
    container = daemon_container(documents)
    environ = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name"
            environ[variable["name"]] = one(documents, "StatefulSet")["metadata"]["name"] + "-0"
        elif "resourceFieldRef" in source:
            assert source["resourceFieldRef"]["resource"] == "requests.cpu"
            asked = str((container.get("resources", {}).get("requests") or {}).get("cpu", 0))
            environ[variable["name"]] = str(math.ceil(cores(asked)))
        else:
            environ[variable["name"]] = variable["value"]
    return environ


def cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def mount(documents: list[Manifest], model: Path, model_name: str, folder: Path) -> dict[str, str]:
    """Lay the volumes of a pod out under `folder`, secrets made up; the pod's environment with paths to match."""
    spec = one(documents, "StatefulSet")["spec"]["template"]["spec"]
    volumes = {each["name"]: each for each in spec["volumes"]}
    maps = {each["metadata"]["name"]: each["data"] for each in documents if each["kind"] == "ConfigMap"}
    places = {each["name"]: each["mountPath"] for each in daemon_container(documents)["volumeMounts"]}
    for name, place in places.items():
        target = folder / place.lstrip("/")
        target.mkdir(parents=True)
        if name == "model":
            (target / model_name).parent.mkdir(exist_ok=True)
            (target / model_name).write_bytes(model.read_bytes())
            continue
        for source in volumes[name].get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                (target / item["path"]).write_text("secret")
        for file, text in maps.get(volumes[name].get("configMap", {}).get("name"), {}).items():
            (target / file).write_text(_moved(text, places.values(), folder))
    return {name: _moved(text, places.values(), folder) for name, text in pod_environment(documents).items()}


def _moved(text: str, places: Any, folder: Path) -> str:
    found = "|".join(re.escape(place) for place in places)
    return re.sub(rf'(^|")({found})/', lambda match: f"{match[1]}{folder}{match[2]}/", text, flags=re.MULTILINE)
