"""The daemon of this checkout, given what the chart's pods would have. Run by `make test-charts`."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from daemon_process import write_model

from deploy.kafka.local_kafka import free_ports
from streamlstm.config import Config, load
from streamlstm.config.sources import settings
from streamlstm.errors import ConfigError
from streamlstm.service.health import START_LIMIT_SECONDS
from tests.charts.chart import CASES, HAS_CUDA, case_manifests, daemon_container, manifests, mount, one, rendered

CASE = pytest.mark.parametrize("case", CASES)
LEAVING_SECONDS = 10


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "made.safetensors")


@CASE
def test_the_daemon_takes_its_configuration(case: str, model: Path, tmp_path: Path) -> None:
    """From the files and variables that a pod would have; and they say what the values say."""
    config = pod_config(case, model, tmp_path)
    given = yaml.safe_load(CASES[case].read_text()).get("config", {})
    ours = json.loads(config.model_dump_json())
    if case == "gpu" and not HAS_CUDA:
        ours["engine"]["backend"] = "cuda"  # what was refused
    for section, values in given.items():
        for name, value in values.items():
            if name != "security":
                assert ours[section][name] == value
    assert config.kafka.group_instance_id == f"{one(case_manifests(case), 'StatefulSet')['metadata']['name']}-0"
    assert config.commit.transactional_id is None
    if case != "image":
        assert Path(config.model.path).read_bytes() == model.read_bytes()


def pod_config(case: str, model: Path, folder: Path) -> Config:
    found = case_manifests(case)
    given = yaml.safe_load(CASES[case].read_text())
    environ = mount(found, model, given.get("model", {}).get("file", "model.safetensors"), folder)
    if case == "gpu" and not HAS_CUDA:
        with pytest.raises(ConfigError) as refused:
            load(Path(environ["STREAMLSTM_CONFIG"]), environ)
        assert [line.split(": ")[1] for line in str(refused.value).splitlines()] == ["engine.backend"]
        return load(Path(environ["STREAMLSTM_CONFIG"]), environ, ["engine.backend=cpu"])
    return load(Path(environ["STREAMLSTM_CONFIG"]), environ)


def test_every_setting_passes_through(tmp_path: Path, model: Path) -> None:
    """Each at a value of its own, fractions and lists too, and back with the same value and type."""
    ours = {"kafka.group_instance_id", "commit.transactional_id", "model.path", "metrics.enabled"}
    values: dict[str, Any] = {}
    for key, field in settings().items():
        if key in ours or key.startswith("kafka.security"):
            continue
        value = field.default
        if value is None:
            value = field.json_schema_extra["example"] if isinstance(field.json_schema_extra, dict) else None
        *tables, name = key.split(".")
        table = values
        for each in tables:
            table = table.setdefault(each, {})
        table[name] = value
    values["input"]["start"] = "timestamp"
    values["anomaly"] |= {"min_deviation": 1e-7, "min_deviation_percent": 12.5}
    values["kafka"]["client_id"] = 'a "b" \\ <c> & é\t#'
    found = manifests(rendered({"config": values}))
    environ = mount(found, model, "model.safetensors", tmp_path)
    config = json.loads(load(Path(environ["STREAMLSTM_CONFIG"]), environ).model_dump_json())
    for section, table in json.loads(json.dumps(values)).items():
        for name, value in table.items():
            assert config[section][name] == value
            assert type(config[section][name]) is type(value)


def test_threads_follow_the_request(model: Path, tmp_path: Path) -> None:
    for case, threads in {"defaults": 1, "minimal": 0, "everything": 2}.items():
        assert pod_config(case, model, tmp_path / case).engine.threads == threads


def test_the_probes_ask_what_the_daemon_answers(model: Path, tmp_path: Path) -> None:
    """A real daemon with the rendered configuration, its brokers away: alive, and not ready."""
    metrics, closed = free_ports(2)
    values = {
        "config": {
            "metrics": {"host": "127.0.0.1", "port": metrics},
            "kafka": {"bootstrap_servers": [f"127.0.0.1:{closed}"]},
        }
    }
    found = manifests(rendered(values))
    container = daemon_container(found)
    environ = mount(found, model, "model.safetensors", tmp_path)
    command = [str(Path(sys.executable).parent / "streamlstm"), *container["args"]]
    with tempfile.TemporaryFile("w+") as log:
        daemon = subprocess.Popen(command, env={**environ, "HOME": str(Path.home())}, stderr=log)
        try:
            ports = {each["name"]: each["containerPort"] for each in container["ports"]}
            answers = {
                name: asked(container[name]["httpGet"], ports, daemon)
                for name in ("startupProbe", "livenessProbe", "readinessProbe")
            }
            annotations = one(found, "StatefulSet")["spec"]["template"]["metadata"]["annotations"]
            page = {"path": annotations["prometheus.io/path"], "port": int(annotations["prometheus.io/port"])}
            answers["scrape"] = asked(page, ports, daemon)
        finally:
            daemon.kill()
            daemon.wait()
        log.seek(0)
        said = log.read()
    assert answers == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503, "scrape": 200}, said


def asked(probe: dict[str, Any], ports: dict[str, int], daemon: subprocess.Popen[bytes]) -> int:
    port = ports.get(probe["port"], probe["port"])
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{probe['path']}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as answer:
            return answer.code
        except OSError:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@CASE
def test_times_fit_the_daemons(case: str, model: Path, tmp_path: Path) -> None:
    """Its port is where the probes look, its start may take as long as it allows itself, and it can drain."""
    config, found = pod_config(case, model, tmp_path), case_manifests(case)
    container = daemon_container(found)
    assert {"name": "metrics", "containerPort": config.metrics.port} in container["ports"]
    assert one(found, "Service")["spec"]["ports"][0]["port"] == config.metrics.port
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= START_LIMIT_SECONDS
    grace = one(found, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= 3 * config.commit.transaction_timeout_ms / 1000 + LEAVING_SECONDS
    if one(found, "StatefulSet")["metadata"]["name"] != "pumps":  # which says its own
        assert grace <= 3 * config.commit.transaction_timeout_ms / 1000 + 2 * LEAVING_SECONDS


def test_the_grace_follows_the_transactions() -> None:
    found = manifests(rendered({"config": {"commit": {"transaction_timeout_ms": 30_500}}}))
    assert one(found, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 107
