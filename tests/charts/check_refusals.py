"""Values that Helm must refuse, and by what name. Run by `make test-charts`."""

import pytest

from tests.charts.chart import helm

REFUSED = {
    "a text for a number": ({"replicas": "two"}, "replicas"),
    "an unknown value": ({"replicaCount": 2}, "replicaCount"),
    "an unknown value further in": ({"image": {"tagg": "1"}}, "tagg"),
    "an unknown section": ({"config": {"kafkaa": {}}}, "kafkaa"),
    "an unknown setting": ({"config": {"kafka": {"bootstrap_server": ["a:1"]}}}, "bootstrap_server"),
    "an unknown setting of security": ({"config": {"kafka": {"security": {"ssl_cafil": "a"}}}}, "ssl_cafil"),
    "a password as a setting": ({"config": {"kafka": {"security": {"sasl_plain_password": "a"}}}}, "plain_password"),
    "a text for a setting's number": ({"config": {"commit": {"interval_ms": "100"}}}, "interval_ms"),
    "a fraction for a whole number": ({"config": {"commit": {"interval_ms": 1.5}}}, "interval_ms"),
    "a setting out of bounds": ({"config": {"commit": {"interval_ms": 0}}}, "interval_ms"),
    "an unknown choice": ({"config": {"output": {"compression": "zip"}}}, "compression"),
    "one name for all members": ({"config": {"kafka": {"group_instance_id": "a"}}}, "the pod's name"),
    "one transactional id for all": ({"config": {"commit": {"transactional_id": "a"}}}, "the pod's name"),
    "no port for the probes": ({"config": {"metrics": {"enabled": False}}}, "the probes need the port"),
    "any port for the probes": ({"config": {"metrics": {"port": 0}}}, "the probes need a port"),
    "a broker without a port": ({"config": {"kafka": {"bootstrap_servers": ["kafka"]}}}, "expected host:port"),
    "an unknown source": ({"model": {"source": "bucket"}}, "source"),
    "no claim": ({"model": {"source": "existingClaim"}}, "existingClaim"),
    "no ConfigMap": ({"model": {"configMap": ""}}, "configMap"),
    "no image to bring the model": ({"model": {"source": "initContainer"}}, "image"),
    "no path in the image": ({"model": {"source": "image"}}, "config.model.path: not set"),
    "a path beside a ConfigMap": ({"config": {"model": {"path": "/a"}}}, "follows from model.file"),
    "a GPU for nothing": ({"gpu": {"count": 1}}, "config.engine.backend"),
    "KEDA without a login": (
        {"autoscaling": {"enabled": True}, "config": {"kafka": {"security": {"security_protocol": "SASL_SSL"}}}},
        "autoscaling.authenticationRef",
    ),
    "two places of a password": (
        {
            "kafkaSecrets": {"password": {"secret": "a"}},
            "config": {"kafka": {"security": {"sasl_plain_password_file": "/a"}}},
        },
        "only one of them",
    ),
    "an unknown way to be scraped": ({"metrics": {"scrape": "serviceMonitor"}}, "scrape"),
    "a grace of nothing": ({"terminationGracePeriodSeconds": 0}, "terminationGracePeriodSeconds"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_wrong_values_are_refused(why: str) -> None:
    """Before anything is installed, and by the name of what is wrong."""
    values, named = REFUSED[why]
    done = helm("template", values)
    assert done.returncode != 0
    assert named in done.stderr
    assert "nil pointer" not in done.stderr
