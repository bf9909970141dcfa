"""The HTTP port over real sockets: pages, wrong requests, slow clients, many clients."""

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from streamlstm.errors import ConfigError
from streamlstm.service import http_server
from streamlstm.service.health import Check, Verdict
from streamlstm.service.http_server import HttpServer, Page, verdict_page

GOOD = Verdict((Check("loop", True, "fine"),))
BAD = Verdict((Check("loop", False, "last turn 99 s ago"), Check("commit", True, "nothing waiting")))


def failing_page() -> Page:
    raise RuntimeError("a page that fails")


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    pages = {
        "/metrics": lambda: Page(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", b"a 1\n"),
        "/livez": lambda: verdict_page(GOOD),
        "/readyz": lambda: verdict_page(BAD),
        "/fails": failing_page,
    }
    running = HttpServer("127.0.0.1", 0, pages)
    running.start()
    yield running
    running.stop()


def get(server: HttpServer, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def raw(server: HttpServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while block := client.recv(4096):
            answer += block
        return answer


def served(server: HttpServer) -> bool:
    try:
        return raw(server, b"GET /livez HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False


def test_metrics(server: HttpServer) -> None:
    status, headers, body = get(server, "/metrics?name[]=a")
    assert (status, body) == (200, b"a 1\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Connection"] == "close"


def test_health_says_why(server: HttpServer) -> None:
    status, headers, body = get(server, "/livez")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == {"status": "ok", "checks": {"loop": {"ok": True, "detail": "fine"}}}
    status, _, body = get(server, "/readyz")
    assert status == 503
    assert json.loads(body) == {
        "status": "failing",
        "checks": {
            "loop": {"ok": False, "detail": "last turn 99 s ago"},
            "commit": {"ok": True, "detail": "nothing waiting"},
        },
    }


def test_head_has_the_length_and_no_body(server: HttpServer) -> None:
    status, headers, body = get(server, "/metrics", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "4", b"")


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
def test_anything_else_is_refused(server: HttpServer, path: str, method: str, status: int) -> None:
    assert get(server, path, method)[0] == status


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics SPDY/3\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * (http_server.MAX_REQUEST_BYTES - 5),
    ],
)
def test_broken_requests_get_400(server: HttpServer, request_bytes: bytes) -> None:
    assert raw(server, request_bytes).startswith(b"HTTP/1.1 400 ")


def test_a_page_that_fails_is_logged_and_harms_no_other(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    assert raw(server, b"GET /fails HTTP/1.1\r\n\r\n") == b""
    assert "a page failed" in caplog.text
    assert get(server, "/livez")[0] == 200


def test_a_client_that_leaves_early_harms_nothing(server: HttpServer) -> None:
    for _ in range(3 * http_server.MAX_CONNECTIONS):
        socket.create_connection(("127.0.0.1", server.port)).close()
    assert get(server, "/livez")[0] == 200


def test_slow_clients_are_cut_off_at_the_deadline(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that trickle in don't extend it, and other clients are served meanwhile."""
    monkeypatch.setattr(http_server, "DEADLINE_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n")
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.1):
                try:
                    slow.send(b"X")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        assert get(server, "/livez")[0] == 200
        try:
            assert slow.recv(10) == b""
        except ConnectionResetError:
            pass
        finally:
            stop.set()
            thread.join()


def test_connections_beyond_the_limit_are_closed(server: HttpServer) -> None:
    idle = [
        socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(http_server.MAX_CONNECTIONS)
    ]
    try:
        assert not served(server)
    finally:
        for client in idle:
            client.close()
    deadline = time.monotonic() + 10
    while not served(server):
        assert time.monotonic() < deadline


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    server = HttpServer("::1", 0, {"/livez": lambda: verdict_page(GOOD)})
    server.start()
    try:
        with socket.create_connection(("::1", server.port), timeout=10) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
    finally:
        server.stop()


def test_a_port_in_use_is_a_configuration_error(server: HttpServer) -> None:
    with pytest.raises(ConfigError, match=f"metrics.host, metrics.port: found '127.0.0.1', {server.port} .*in use"):
        HttpServer("127.0.0.1", server.port, {})


def test_a_host_that_is_not_here() -> None:
    with pytest.raises(ConfigError, match="expected an address of this machine"):
        HttpServer("192.0.2.1", 0, {})
