"""The other end of /livez: a daemon of this machine is asked, as a container's health check does."""

from http.client import HTTPConnection, HTTPException

from streamlstm.config.sections import Metrics
from streamlstm.errors import ConfigError, RetryError
from streamlstm.service.http_server import DEADLINE_SECONDS

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def ask(metrics: Metrics) -> str:
    """What /livez says of a live daemon. Raises RetryError with it when the daemon stands still, or when none answers;
    ConfigError when the settings don't say where to ask.
    """
    if not metrics.enabled or metrics.port == 0:
        raise ConfigError(["metrics.enabled, metrics.port: health is asked for there; expected true and a fixed port"])
    host = ANY_ADDRESS.get(metrics.host, metrics.host)
    connection = HTTPConnection(host, metrics.port, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        said = answer.read().decode()
    except (OSError, HTTPException) as error:
        raise RetryError(f"http://{host}:{metrics.port}/livez: no answer ({error})") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise RetryError(f"http://{host}:{metrics.port}/livez: {answer.status} {said.strip()}")
    return said
