"""The HTTP port: /metrics, /livez, /readyz and /debug/streams/worst, and nothing else.

Small on purpose: a request is read whole within one deadline, answered, and the connection closed, by a bounded number
of threads. So a slow or broken client holds a thread for `DEADLINE_SECONDS` at most and never the daemon.
"""

import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from streamlstm.errors import ConfigError
from streamlstm.service.health import Verdict

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 5.0
MAX_REQUEST_BYTES = 16_384
MAX_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: `body` is the whole of it."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]


def verdict_page(verdict: Verdict) -> Page:
    """200 or 503, with the checks and their figures as JSON."""
    checks = {check.name: {"ok": check.ok, "detail": check.detail} for check in verdict.checks}
    body = json.dumps({"status": "ok" if verdict.ok else "failing", "checks": checks}).encode() + b"\n"
    status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(status, "application/json", body)


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves `pages` by path, in threads of its own, from `start` to `stop`.

    `port` 0 takes any free one; `self.port` says which. Raises ConfigError when the address can't be listened on.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.pages = pages
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._thread = threading.Thread(target=self.serve_forever, name="http", daemon=True)
        try:
            self.address_family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__((str(address[0]), port), _Connection)
        except OSError as error:
            expected = "an address of this machine and a free port"
            raise ConfigError(
                [f"metrics.host, metrics.port: found {host!r}, {port} ({error.strerror}); expected {expected}"]
            ) from None
        self.port = int(self.socket.getsockname()[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("a page failed")


class _Connection(socketserver.BaseRequestHandler):
    server: HttpServer

    def handle(self) -> None:
        connection: socket.socket = self.request
        deadline = time.monotonic() + DEADLINE_SECONDS
        try:
            head = _read_head(connection, deadline)
            method, page = _answer(head, self.server.pages)
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.sendall(_response(page, with_body=method != "HEAD"))
        except OSError:
            return  # the client has gone or is too slow: its loss


def _read_head(connection: socket.socket, deadline: float) -> bytes:
    """The request up to its empty line, or what came of it. Raises TimeoutError past the deadline."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST_BYTES:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv(4096)
        if not received:
            break
        head += received
        if time.monotonic() > deadline:
            raise TimeoutError
    return head


def _answer(head: bytes, pages: Pages) -> tuple[str, Page]:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or b"\r\n\r\n" not in head:
        return "", _plain(HTTPStatus.BAD_REQUEST)
    method, target = words[0], words[1].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return method, _plain(HTTPStatus.METHOD_NOT_ALLOWED)
    page = pages.get(target)
    return method, page() if page else _plain(HTTPStatus.NOT_FOUND)


def _plain(status: HTTPStatus) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status.value} {status.phrase}\n".encode())


def _response(page: Page, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\nContent-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (page.body if with_body else b"")
