"""TLS and SASL settings, passed through to kafka-python under its own names.

A password is never a setting: `*_password_file` names the file that holds it, and the file is read only when a client
is made (`client_settings`). So no repr, error message or log line of the configuration can contain one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from streamlstm.config.section import Section, Text, setting

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"]

SECRETS = {"ssl_password": "ssl_password_file", "sasl_plain_password": "sasl_plain_password_file"}
FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile", *SECRETS.values())


class Security(Section):
    """How to reach the brokers safely. The names are kafka-python's, with `_file` added for what is secret."""

    security_protocol: Protocol = setting("PLAINTEXT", "How to talk to the brokers.")
    ssl_check_hostname: bool = setting(True, "Whether a broker's certificate must carry its host name.")
    ssl_cafile: Text | None = setting(
        None, "Certificate authorities to trust (PEM); unset: those of the system.", example="/etc/streamlstm/ca.pem"
    )
    ssl_certfile: Text | None = setting(
        None, "Client certificate with its chain (PEM).", example="/etc/streamlstm/client.pem"
    )
    ssl_keyfile: Text | None = setting(
        None, "Private key of the client certificate (PEM).", example="/etc/streamlstm/client.key"
    )
    ssl_password_file: Text | None = setting(
        None, "File that holds the password of the private key.", example="/run/secrets/key-password"
    )
    ssl_crlfile: Text | None = setting(
        None, "Certificate revocation list (PEM).", example="/etc/streamlstm/revoked.pem"
    )
    ssl_ciphers: Text | None = setting(None, "Ciphers to offer, an OpenSSL cipher list.", example="ECDHE+AESGCM")
    sasl_mechanism: Mechanism | None = setting(
        None, "How to log in, with SASL_PLAINTEXT and SASL_SSL.", example="SCRAM-SHA-512"
    )
    sasl_plain_username: Text | None = setting(None, "User name for PLAIN and SCRAM.", example="streamlstm")
    sasl_plain_password_file: Text | None = setting(
        None, "File that holds the password for PLAIN and SCRAM.", example="/run/secrets/kafka-password"
    )
    sasl_kerberos_service_name: Text | None = setting(
        None, "Kerberos service name of the brokers, for GSSAPI.", example="kafka"
    )
    sasl_kerberos_domain_name: Text | None = setting(
        None, "Kerberos domain name of the brokers, for GSSAPI.", example="kafka.example.org"
    )

    @property
    def encrypted(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def authenticated(self) -> bool:
        return self.security_protocol.startswith("SASL")

    def client_settings(self) -> Mapping[str, str | bool]:
        """Keyword arguments for a kafka-python client, the passwords read from their files now.

        The result holds secrets: hand it to the client and keep it nowhere. Raises OSError when a file has gone since
        the configuration was read.
        """
        settings: dict[str, str | bool] = {
            name: value for name, value in self.model_dump(exclude_none=True).items() if name not in SECRETS.values()
        }
        for name, file_name in SECRETS.items():
            path = getattr(self, file_name)
            if path is not None:
                settings[name] = read_secret(Path(path))
        return settings


def read_secret(path: Path) -> str:
    """The text of a secret file without the line end that editors add. Raises OSError or UnicodeDecodeError."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")
