"""kafka-python 3.0: its seams and what we repair, here (and in sockets.py and consumer.py) and nowhere else.

The library's connection and protocol layers are sound and its consumer is repaired below; its KafkaProducer is not used
(see transaction.py). None of what is touched here is public API, so `check_client` looks at every seam before the first
connection, and a release outside SUPPORTED is refused.

    large reads      sockets are read 4 KB at a time, and TLS writes copy what is left after every partial send
    copies           an answer is copied four times before it is decoded, a request before it is sent (frames.py)
    TLS handshake    has no deadline
    failed connects  leave their socket open
    refused logins   are forgotten at once and tried again for ever
    TLS files        are read once for all, ssl_ciphers is ignored, and a key asks the terminal for its password
    SCRAM names      with a comma or an equals sign are sent as they are (RFC 5802 has them escaped)
    hang-ups         before the first answer are tried again for ever, whatever TLS said of the reason
    topic creation   every metadata request asks the broker to create the topics it names
    log starts       the fetcher drops what fetch answers say of where the log begins
    whole batches    the fetcher instantiates `self.PartitionRecords`: ours yields record batches, counted in bytes
    stalled reads    in a join nothing is read, not even of the partitions that stay (KIP-429 lets them go on)
    unfinished join  a join that begins in a poll() which times out is never finished, unless need_rejoin() stays true
    forgotten join   one that ends between two polls is begun anew: short polls keep the whole group joining for ever
    silent loss      a member that learns from a join that it was thrown out is not told to have lost its partitions
    lost partitions  the cooperative assignor goes on claiming partitions after on_partitions_lost
    fenced member    a static member whose id was taken is never told; its heartbeats just stop
    failed leaving   leaves the consumer's connections open
    closing          is done across the I/O thread: a connection that is just being made stays open
    idle questions   every poll waits for the I/O thread twice, to be told what is known
"""

import inspect
import socket
from contextlib import suppress
from importlib import metadata
from typing import Any

from kafka import KafkaConsumer
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import BaseCoordinator
from kafka.net.connection import KafkaConnection
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.producer import EndTxnRequest, ProduceRequest, TxnOffsetCommitRequest
from kafka.record import MemoryRecords

from streamlstm.errors import ConfigError
from streamlstm.transport.settings import ConnectionSettings
from streamlstm.transport.sockets import (
    ClientCertificateError,
    CutOffError,
    PlainTransport,
    TlsContext,
    TlsTransport,
    UntrustedBrokerError,
    connect,
    tls_handshake,
)

SUPPORTED = "kafka-python >=3.0.12,<3.1"
ACCESS_ERRORS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.AuthorizationError,
    kafka_errors.UnsupportedSaslMechanismError,
    ClientCertificateError,
)
FIRST_ERRORS = (UntrustedBrokerError, CutOffError)
_HANGING_UP = (kafka_errors.KafkaConnectionError, kafka_errors.IllegalSaslStateError)
_RECEIVE_LIMIT = 1 << 30
_ALONE_READ_BYTES = 1 << 18  # more of an answer in the socket closes the window: the sender waits 5 ms each time
QUIETLY = {"slow_task_threshold_secs": 0}  # or a machine that is short of CPU gets warnings about the library's inside


def check_client() -> None:
    """Raises ConfigError when the installed kafka-python isn't one whose seams are known."""
    version = metadata.version("kafka-python")
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    found = [] if (3, 0, 12) <= numbers < (3, 1) else [f"the version is {version}"]
    found += [f"{name} is missing" for name, present in _seams().items() if not present]
    if found:
        raise ConfigError([f"kafka-python: streamlstm works with {SUPPORTED}; found that {'; '.join(found)}"])


def _seams() -> dict[str, bool]:
    """Every private name that is used here, and whether it is there."""
    records_arguments = {"fetch_offset", "tp", "records", "aborted_transactions", "metric_aggregator", "on_drain"}
    coordinator = {
        "rejoining",
        "rejoin_needed",
        "heartbeat",
        "_heartbeat_enabled",
        "_lock",
        "coordinator_id",
        "_client",
    }
    fetching = set(inspect.signature(Fetcher.fetch_records).parameters)
    joining = {"need_rejoin", "_do_join_and_sync_async", "_on_join_complete_async", "_join_task"}
    return {
        "Fetcher.PartitionRecords": records_arguments <= set(inspect.signature(Fetcher.PartitionRecords).parameters),
        "Fetcher._append": {"take", "next_fetch_offset", "leader_epoch"} <= _names(Fetcher._append),
        "Fetcher._parse_fetched_data": "partition_data" in _names(Fetcher._parse_fetched_data),
        "MemoryRecords._buffer": {"_buffer", "_next_slice"} <= set(MemoryRecords.__slots__),
        "KafkaTCPTransport._read_from_sock": {"wait_read", "data_received"}
        <= _names(KafkaTCPTransport._read_from_sock),
        "KafkaTCPTransport._sock_send": "_write_buffer" in _names(KafkaTCPTransport._sock_send),
        "KafkaConnection.parser": {"receive_bytes", "in_flight_requests"} <= _names(KafkaConnection.data_received),
        "KafkaProtocol": {"_process_response", "_validate_frame_size", "send_bytes"} <= set(dir(KafkaProtocol)),
        "KafkaSSLTransport": "ssl_context" in KafkaSSLTransport.DEFAULT_CONFIG,
        "KafkaConnection.initialize": {"close", "init_future"} <= set(dir(KafkaConnection)),
        "KafkaNetSocket.sock_connect": {"dns_lookup", "sock_connect"} <= set(dir(KafkaNetSocket)),
        "KafkaConnectionManager._build_transport": hasattr(KafkaConnectionManager, "_build_transport"),
        "Fetcher.fetch_records": {"max_records", "timeout_ms"} <= fetching,
        "Fetcher.send_fetches": "_nodes_with_pending_fetch_requests" in _names(Fetcher._send_fetches_async),
        "KafkaConsumer._poll_once": "max_records" in inspect.signature(KafkaConsumer._poll_once).parameters,
        "KafkaConsumer.close": "_client" in _names(KafkaConsumer.close),
        "BaseCoordinator's state": coordinator <= _names(BaseCoordinator.__init__),
        "BaseCoordinator.join_group_async": joining <= _names(BaseCoordinator.join_group_async),
        "BaseCoordinator.reset_generation": "reset_generation" in _names(BaseCoordinator._process_join_group_response),
        "CooperativeStickyAssignor": {"member_assignment", "generation"} <= set(vars(CooperativeStickyAssignor())),
        "ProduceRequest v12": ProduceRequest.max_version >= 12,
        "EndTxnRequest v5": EndTxnRequest.max_version >= 5,
        "TxnOffsetCommitRequest v5": TxnOffsetCommitRequest.max_version >= 5,
    }


def _names(function: Any) -> set[str]:
    """Attributes and globals that a function's code mentions."""
    return set(function.__code__.co_names)


class Connections(KafkaConnectionManager):  # type: ignore[misc]
    """kafka-python's connection manager with our transports.

    `last_error` is why a connection failed last; an attempt that the deadline cut short hides no earlier cause. Until
    this is bootstrapped, a broker that isn't trusted or hangs up refuses us, and that is told at once; later it is one
    that is away, to be tried again. `refused_by` is the host and port of the last that refused.
    """

    def __init__(self, net: NetworkSelector, tls: TlsContext, read_bytes: int, **configs: Any) -> None:
        super().__init__(net, **configs)
        self.cluster.config["allow_auto_create_topics"] = False
        self.last_error = ""
        self.refused_by = ""
        self._read_bytes = read_bytes
        self._tls = tls
        self._was_bootstrapped, self._greeted = False, set[Any]()
        self._refused: dict[Any, Exception] = {}

    @property
    def bootstrapped(self) -> bool:
        """Once and for all, whatever comes of later attempts."""
        self._was_bootstrapped |= super().bootstrapped
        return self._was_bootstrapped

    def get_connection(self, node_id: Any, *given: Any, **named: Any) -> Any:
        connection = super().get_connection(node_id, *given, **named)
        if not connection.init_future.is_done:
            connection.init_future.add_errback(self._note_refusal, node_id)
            connection.close_future.add_errback(self._note_loss, node_id)
        return connection

    def _note_refusal(self, node_id: Any, error: Exception) -> None:
        """It came to nothing: when it was made, in the TLS handshake, or in the login."""
        was_greeted = node_id in self._greeted
        if was_greeted and not isinstance(error, kafka_errors.KafkaError):
            # kafka-python checks that the broker knows the password too (RFC 5802), and says so in Python's own words
            error = kafka_errors.SaslAuthenticationFailedError(f"its part of the login makes no sense: {error}")
        elif was_greeted and type(error) in _HANGING_UP:
            error = CutOffError(*error.args)
        if was_greeted:
            self.last_error = f"{self._address(node_id)}: {error}"
        if isinstance(error, ACCESS_ERRORS) or (not self.bootstrapped and isinstance(error, FIRST_ERRORS)):
            self._refused[node_id] = error
            self.refused_by = self._address(node_id)

    def _note_loss(self, node_id: Any, error: Exception) -> None:
        """A listener that wants a login hangs up on the first request without one."""
        if not self.bootstrapped and node_id not in self._refused:
            self._note_refusal(node_id, error)

    def maybe_raise_auth_failure(self, node_id: Any) -> None:
        if node_id in self._refused:
            raise self._refused.pop(node_id)

    def close(self, node_id: Any = None, timeout_ms: float | None = None) -> None:
        """In the I/O thread, between two steps of a connection: across it, one that is just being made stays open. From
        here when that thread is the caller's, or has ended.
        """
        if node_id is None and not self.closed:
            with suppress(Exception):
                self.run(super().close)
        super().close(node_id, timeout_ms)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        self._greeted.discard(node.node_id)
        try:
            transport = await self._open_transport(node, timeout_at)
        except (OSError, kafka_errors.KafkaError) as error:
            if not (self.last_error and isinstance(error, kafka_errors.KafkaTimeoutError)):
                self.last_error = f"{node.host}:{node.port}: {error}"
            if isinstance(error, (*ACCESS_ERRORS, *FIRST_ERRORS)):
                raise
            raise kafka_errors.KafkaConnectionError(str(error)) from error
        self._greeted.add(node.node_id)
        return transport

    async def _open_transport(self, node: Any, timeout_at: float | None) -> Any:
        context = self._tls.current()
        sock = await connect(self._net, node.host, node.port, self.config["socket_options"], timeout_at)
        if context is None:
            transport = PlainTransport(self._net, sock, host=node.host)
        else:
            transport = TlsTransport(self._net, sock, host=node.host, ssl_context=context)
            await tls_handshake(self._net, transport, timeout_at)
        transport.read_bytes = self._read_bytes
        return transport

    def _address(self, node_id: Any) -> str:
        node = self.cluster.broker_metadata(node_id)
        return f"broker {node_id}" if node is None else f"{node.host}:{node.port}"


def client_configs(settings: ConnectionSettings) -> dict[str, Any]:
    # The kernel's send buffer is left to grow by itself: SO_SNDBUF would fix it at what net.core.wmem_max allows.
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    security = {name: value for name, value in settings.security.items() if not name.startswith("ssl_")}
    if str(security.get("sasl_mechanism", "")).startswith("SCRAM"):  # kafka-python sends the name as it is
        user = str(security["sasl_plain_username"])
        security["sasl_plain_username"] = user.replace("=", "=3D").replace(",", "=2C")  # RFC 5802, section 5.1
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "reconnect_backoff_ms": settings.reconnect_backoff_ms,
        "reconnect_backoff_max_ms": settings.reconnect_backoff_max_ms,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "socket_options": options,
        **security,
    }


def open_connections(settings: ConnectionSettings) -> Connections:
    """A connection manager with its own I/O thread, not yet bootstrapped."""
    tls = TlsContext(settings.security)
    net = NetworkSelector(client_id=settings.client_id, **QUIETLY)
    configs = client_configs(settings) | {
        "receive_message_max_bytes": _RECEIVE_LIMIT,
        "socket_connection_setup_timeout_ms": settings.request_timeout_ms,
        "socket_connection_setup_timeout_max_ms": settings.connect_timeout_ms,
    }
    connections = Connections(net, tls, min(settings.read_bytes, _ALONE_READ_BYTES), **configs)
    net.start()
    return connections
