"""Real brokers for the tests, started once per worker. Without Java or Maven they fail and say what to install."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy" / "kafka"))

from local_kafka import LocalKafka

# How long an example takes says what else the machine does.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with brokers first: they wait more than they compute, and the longest of them shouldn't end alone."""
    items.sort(key=lambda item: item.get_closest_marker("kafka") is None)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker with transaction protocol v2. Leave it running: others use it too."""
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def kafka(broker: LocalKafka) -> str:
    """Its bootstrap address."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def broker_v1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker whose clients speak transaction protocol v1."""
    with LocalKafka(tmp_path_factory.mktemp("kafka-v1"), transaction_version=1, light=True) as running:
        yield running


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of this test's own, to be killed and started at will: it is missed, and back, sooner than others."""
    missed = {"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "500"}
    with LocalKafka(tmp_path / "kafka", light=True, properties=missed) as running:
        yield running


@pytest.fixture(scope="session")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A cluster in which any one broker may be killed; a test that does so starts it again."""
    with LocalKafka(tmp_path_factory.mktemp("kafka-three"), brokers=3) as running:
        yield running
