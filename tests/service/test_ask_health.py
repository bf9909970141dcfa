"""`streamlstm health` against the page that it asks."""

import socket

import pytest

from streamlstm.config.sections import Metrics
from streamlstm.errors import ConfigError, RetryError
from streamlstm.service.ask_health import ask
from streamlstm.service.health import Check, Verdict
from streamlstm.service.http_server import HttpServer, verdict_page


def asked(host: str, verdict: Verdict) -> str:
    server = HttpServer(host, 0, {"/livez": lambda: verdict_page(verdict)})
    server.start()
    try:
        return ask(Metrics(host=host, port=server.port))
    finally:
        server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost", "::"])
def test_a_live_daemon(host: str) -> None:
    assert '"status": "ok"' in asked(host, Verdict((Check("loop", True, "fine"),)))


def test_one_that_stands_still() -> None:
    with pytest.raises(RetryError, match=r"/livez: 503 .*last turn 99 s ago"):
        asked("127.0.0.1", Verdict((Check("loop", False, "last turn 99 s ago"),)))


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and doesn't listen
        with pytest.raises(RetryError, match="no answer"):
            ask(Metrics(host="127.0.0.1", port=taken.getsockname()[1]))


@pytest.mark.parametrize("metrics", [Metrics(enabled=False), Metrics(port=0)])
def test_settings_that_do_not_say_where(metrics: Metrics) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.port"):
        ask(metrics)
