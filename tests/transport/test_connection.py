"""Contracts with kafka-python: each seam we use is there, each fault we repair is still in the library.

When a test of the second kind fails after an upgrade, the library has mended the fault and the repair can go.
"""

import inspect
import socket
import ssl
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import BaseCoordinator
from kafka.errors import UnknownBrokerIdError
from kafka.net.connection import KafkaConnection
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.frame import KafkaBytes
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.structs import TopicPartition
from local_kafka import LocalKafka, free_ports

from streamlstm.errors import AccessError, ConfigError, RetryError
from streamlstm.transport import connection, sockets
from streamlstm.transport.cluster import Cluster, Lost, NotSent
from streamlstm.transport.settings import ConnectionSettings, SourceSettings
from streamlstm.transport.source import Source
from tests.transport.fault_proxy import Api, Fault, FaultProxy, Harm
from tests.transport.group_members import group_of, poll
from tests.transport.live import batch, connected, eventually, fresh, make_topic, no_member, produce, read_all, writing
from tests.transport.test_sockets import Connection

USER, PASSWORD = "streamlstm", "a secret"
JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
)


def test_the_installed_client_has_every_seam() -> None:
    assert all(connection._seams().values()), connection._seams()
    connection.check_client()


@pytest.mark.parametrize("version", ["3.0.11", "2.9.0", "3.1.0", "4.0.0"])
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(connection.metadata, "version", lambda _: version)
    with pytest.raises(ConfigError, match=rf"works with kafka-python >=3\.0\.12,<3\.1; found that.*{version}"):
        connection.check_client()


def test_a_missing_seam_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(KafkaConnectionManager, "_build_transport")
    with pytest.raises(ConfigError, match=r"KafkaConnectionManager\._build_transport is missing"):
        connection.check_client()


def test_the_faults_that_are_repaired_are_still_there() -> None:
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        assert "recv(4096)" in inspect.getsource(transport._sock_recv)
    assert "bytes(self[start:self._idx])" in inspect.getsource(KafkaBytes.read)
    assert "wait_read(self._sock)" in inspect.getsource(KafkaSSLTransport.handshake)
    assert "ssl_ciphers" not in KafkaSSLTransport.DEFAULT_CONFIG
    assert "close" not in inspect.getsource(create_connection) + inspect.getsource(KafkaNetSocket.sock_connect)
    joining = inspect.getsource(BaseCoordinator.join_group_async)
    assert "if self._join_task is None or self._join_task.is_done" in joining
    assert joining.index("if not self.rejoining") < joining.index("Errors.UnknownMemberIdError")
    assert "self.rejoining" not in inspect.getsource(BaseCoordinator.reset_generation)
    assert "raise Errors.CorruptRecordError" in inspect.getsource(Fetcher.PartitionRecords._unpack_records)
    assert "self._net.run(" in inspect.getsource(BaseCoordinator.ensure_coordinator_ready)
    assert "self._manager.run(" in inspect.getsource(Fetcher.send_fetches)


def test_a_consumer_that_cannot_leave_closes_its_connections(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = make_topic(kafka, 1)
    with connected(kafka) as cluster:
        source = Source(cluster, SourceSettings((topic,), fresh("group"), session_timeout_ms=6000))
        group_of(source)
        consumer = source._consumer
        connections = list(consumer._client._manager._conns.values())
        assert any(each.connected for each in connections)

        def fail(*given: object, **named: object) -> None:
            raise UnknownBrokerIdError("coordinator-1")

        monkeypatch.setattr(consumer._coordinator, "maybe_leave_group", fail)
        source.close()
        assert source.poll_errors == 1
        assert not any(each.connected for each in connections)


def test_a_poll_asks_the_io_thread_only_what_is_not_known(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = make_topic(kafka, 1)
    settings = SourceSettings((topic,), fresh("group"), session_timeout_ms=6000, fetch_max_wait_ms=30)
    with connected(kafka) as cluster:
        source = Source(cluster, settings)
        assert eventually(lambda: [source.poll(50, 1 << 20), source.is_stable][1])
        consumer, asked = source._consumer, list[str]()
        run, pending = consumer._client._net.run, consumer._fetcher._nodes_with_pending_fetch_requests

        def note(coroutine: Any, *given: Any) -> Any:
            asked.append(coroutine.__name__)
            return run(coroutine, *given)

        monkeypatch.setattr(consumer._client._net, "run", note)
        pending.add(-7)  # as if a fetch were under way
        source.poll(0, 1 << 20)
        assert set(asked) <= {"wait_for"}
        pending.discard(-7)
        consumer._coordinator.coordinator_dead("gone")
        assert eventually(lambda: [source.poll(50, 1 << 20), source.is_stable][1])
        assert {"ensure_coordinator_ready_async", "_send_fetches_async"} <= set(asked)
        source.close()


def test_connections_are_closed_by_their_own_thread(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across it, one that is just being made would stay open."""
    closed_by = set[str]()
    close = KafkaConnection.close

    def note(connection_: KafkaConnection, *given: Any, **named: Any) -> None:
        closed_by.add(threading.current_thread().name)
        close(connection_, *given, **named)

    topic = make_topic(kafka, 1)
    monkeypatch.setattr(KafkaConnection, "close", note)
    with connected(kafka) as cluster:
        source = Source(cluster, SourceSettings((topic,), fresh("group"), session_timeout_ms=6000))
        group_of(source)
        source.close()
        assert {name.split("-")[0] for name in closed_by} == {"kafka"}
    assert {name.split("-")[0] for name in closed_by} == {"kafka"}


def test_a_cluster_whose_io_thread_has_died_is_closed_all_the_same(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(kafka) as cluster:
        make_topic(kafka, 1)
        connections = list(cluster._connections._conns.values())

        def died(*given: object) -> None:
            raise OSError("the event loop has crashed")

        monkeypatch.setattr(cluster._connections, "run", died)
        cluster.close()
        assert cluster._connections.closed
        assert not any(each.connected for each in connections)


def test_the_assignor_claims_what_was_lost() -> None:
    lost = [TopicPartition("t", 0)]
    assignor = CooperativeStickyAssignor()
    assignor.member_assignment = lost
    assert b"t" in assignor.metadata({"t"}).user_data or assignor.metadata({"t"}).owned_partitions


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(RetryError, match=rf"no broker of 127\.0\.0\.1:{port} answers"):
            Cluster.connect(ConnectionSettings((f"127.0.0.1:{port}",), connect_timeout_ms=400), time.monotonic)
    with pytest.raises(RetryError, match="ECONNREFUSED"):
        Cluster.connect(ConnectionSettings((f"127.0.0.1:{port}",), connect_timeout_ms=400), time.monotonic)


def test_brokers_that_have_all_moved_are_found_again(kafka: str) -> None:
    """The stock client knows the addresses of then, for ever."""
    with connected(kafka, request_timeout_ms=1000) as cluster:
        known = cluster._connections.cluster
        node, (gone,) = known.brokers()[0].node_id, free_ports(1)
        for connection_ in list(cluster._connections._conns.values()):
            connection_.close()
        known._brokers = {node: MetadataResponse.MetadataResponseBroker(node, "127.0.0.1", gone, None)}
        topic = make_topic(kafka, 1)
        assert isinstance(cluster.send_any(MetadataRequest(topics=None, max_version=9), cluster.deadline()), NotSent)
        cluster.bootstrap_again()
        assert eventually(lambda: [cluster.watch([topic], cluster.deadline()), cluster.leader(topic, 0)][1]) == node
    with connected(kafka, request_timeout_ms=300) as cluster:
        cluster._connections.cluster._bootstrap_brokers = {
            "bootstrap-0": MetadataResponse.MetadataResponseBroker("bootstrap-0", "127.0.0.1", gone, None)
        }
        cluster.bootstrap_again()  # in vain
        assert cluster._connections.bootstrapped, "a broker that hangs up now would be one that refuses us"
        assert eventually(lambda: [cluster.watch([topic], cluster.deadline()), cluster.leader(topic, 0)][1]) == node


@pytest.mark.kafka
def test_answers_are_not_sent_or_lost(broker: LocalKafka) -> None:
    from kafka.protocol.metadata import MetadataRequest

    def ask(cluster: Cluster, seconds: float) -> object:
        return cluster.send(1, MetadataRequest(topics=[], max_version=9), cluster.clock() + seconds)

    through = f"127.0.0.1:{broker.proxy_port}"
    with FaultProxy(broker.proxy_port, broker.proxied_port) as proxy, connected(through) as cluster:
        assert not isinstance(ask(cluster, 5), NotSent | Lost)
        proxy.faults = [Fault(Api.METADATA, Harm.SWALLOW)]
        began = time.monotonic()
        assert isinstance(ask(cluster, 0.3), Lost)
        assert time.monotonic() - began < 3.0
        proxy.faults = [Fault(Api.METADATA, Harm.CUT_AFTER)]
        assert isinstance(ask(cluster, 5), Lost | NotSent)
        assert isinstance(ask(cluster, -1), NotSent)
        unknown = cluster.send(99, MetadataRequest(topics=[], max_version=9), cluster.deadline())
        assert isinstance(unknown, NotSent)
        cluster.close()
        cluster.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a PKCS#12 key store for the broker and its certificate as PEM, by Java's keytool."""
    folder = tmp_path_factory.mktemp("tls")
    store = ["-keystore", str(folder / "broker.p12"), "-storepass", "password", "-alias", "broker"]
    subject = ["-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-ext", "BC=ca:true"]
    subprocess.run(["keytool", "-genkeypair", "-keyalg", "RSA", "-keysize", "2048", *subject, *store], check=True)
    subprocess.run(["keytool", "-exportcert", "-rfc", "-file", str(folder / "ca.pem"), *store], check=True)
    return folder


@pytest.fixture(scope="module")
def secured(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalKafka:
    properties = {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(certificate / "broker.p12"),
        "ssl.keystore.password": "password",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secured.plain.sasl.jaas.config": JAAS,
    }
    folder = tmp_path_factory.mktemp("kafka-secured")
    with LocalKafka(folder, properties=properties, extra_listeners={"SECURED": "SASL_SSL"}) as running:
        yield running


def security(certificate: Path, password: str = PASSWORD) -> dict[str, str | bool]:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": USER,
        "sasl_plain_password": password,
        "ssl_cafile": str(certificate / "ca.pem"),
        "ssl_ciphers": "ECDHE+AESGCM",
    }


@pytest.mark.kafka
def test_reading_and_writing_over_tls_with_a_login(secured: LocalKafka, certificate: Path) -> None:
    topic = make_topic(secured.bootstrap, 1)
    values = [bytes([i]) * 40_000 for i in range(100)]
    produce(secured.bootstrap, topic, 0, values)
    address = f"127.0.0.1:{secured.listener_ports['SECURED']}"
    with connected(address, security=security(certificate)) as cluster:
        source = Source(cluster, SourceSettings((topic,), fresh("group"), session_timeout_ms=6000))
        try:
            read, deadline = 0, time.monotonic() + 20
            while read < 100 and time.monotonic() < deadline:
                read += sum(each.count for each in poll(source, 200, 1 << 20).batches)
        finally:
            source.close()
    assert read == 100
    with writing(address, fresh("tx"), security=security(certificate)) as writer:
        for turn in range(3):
            writer.commit([batch(topic, 0, values[:20])], {(topic, 0): turn + 1}, no_member(fresh("group")))
    assert read_all(secured.bootstrap, topic)[0] == values + values[:20] * 3


@pytest.mark.kafka
def test_a_wrong_password_is_no_reason_to_try_again(secured: LocalKafka, certificate: Path) -> None:
    address = f"127.0.0.1:{secured.listener_ports['SECURED']}"
    settings = ConnectionSettings((address,), security=security(certificate, "wrong"))
    assert "wrong" not in repr(settings)
    with pytest.raises(AccessError, match="refuses the login of"):
        Cluster.connect(settings, time.monotonic)


@pytest.mark.kafka
def test_a_certificate_that_is_not_trusted(secured: LocalKafka, certificate: Path) -> None:
    address = f"127.0.0.1:{secured.listener_ports['SECURED']}"
    untrusting = {name: value for name, value in security(certificate).items() if name != "ssl_cafile"}
    with pytest.raises(AccessError, match=r"can't be trusted: .*kafka\.security\.ssl_cafile"):
        Cluster.connect(ConnectionSettings((address,), security=untrusting, connect_timeout_ms=1000), time.monotonic)


def test_a_certificate_file_that_is_not_there() -> None:
    security = {"security_protocol": "SSL", "ssl_cafile": "/does/not/exist.pem"}
    with pytest.raises(ConfigError, match=r'kafka\.security\.ssl_cafile: found "/does/not/exist\.pem" \(No such file'):
        Cluster.connect(ConnectionSettings(("127.0.0.1:1",), security=security), time.monotonic)


def test_an_address_that_does_not_answer_leaves_time_for_the_next(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a name whose IPv6 packets vanish. The stock client waits at the first address until the deadline."""
    port, real = int(kafka.split(":")[1]), KafkaNetSocket.dns_lookup
    with socket.socket() as silent, socket.socket() as waiting:
        silent.bind(("127.0.0.2", 0))
        silent.listen(0)
        waiting.connect(silent.getsockname())  # the queue is full: no more SYNs are answered

        def two(self: KafkaNetSocket, host: str, port_: int) -> list[Any]:
            (family, kind, protocol, name, address), *_ = real(self, host, port_)
            return [(family, kind, protocol, name, silent.getsockname()), (family, kind, protocol, name, address)]

        monkeypatch.setattr(KafkaNetSocket, "dns_lookup", two)
        with connected(f"127.0.0.1:{port}", connect_timeout_ms=10_000, request_timeout_ms=10_000) as cluster:
            topic = make_topic(kafka, 1)
            cluster.watch([topic], cluster.deadline())
            assert cluster.leader(topic, 0) is not None


def test_a_tls_handshake_with_a_silent_server_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = ConnectionSettings(
            (f"127.0.0.1:{silent.getsockname()[1]}",), security={"security_protocol": "SSL"}, connect_timeout_ms=500
        )
        began = time.monotonic()
        with pytest.raises(RetryError):
            Cluster.connect(settings, time.monotonic)
        assert time.monotonic() - began < 3


def test_what_tls_holds_back_is_read_at_once(certificate: Path) -> None:
    """Bytes that TLS has decrypted are not in the socket: the event loop would not be told of them."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    key = certificate / "key.pem"
    command = ["openssl", "pkcs12", "-in", str(certificate / "broker.p12"), "-passin", "pass:password", "-nodes"]
    subprocess.run([*command, "-out", str(key)], check=True, capture_output=True)
    server.load_cert_chain(key)
    ours, theirs = socket.socketpair()
    sent = struct.pack(">i", 102_400) + bytes(range(256)) * 400
    with server.wrap_socket(theirs, server_side=True, do_handshake_on_connect=False) as far:
        client = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
        transport = sockets.TlsTransport(None, ours, host="localhost", ssl_context=client)
        greeting = threading.Thread(target=far.do_handshake)
        greeting.start()
        transport._sock.do_handshake()
        greeting.join()
        sending = threading.Thread(target=far.sendall, args=(sent,))
        sending.start()
        sending.join()
        transport._sock.setblocking(False)
        transport.set_protocol(Connection())
        brought, error = transport._sock_recv()
        assert ([bytes(answer.read()) for answer in brought.answers], error) == ([sent[4:]], None)
        brought, error = transport._sock_recv()
        assert (len(brought), error) == (0, None)
        far.close()
        assert transport._sock_recv()[1] is not None
        transport._sock.close()
