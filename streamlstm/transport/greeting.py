"""Why brokers don't let us in, in words that name the setting to change: what the client's error leaves out is asked of
the listener (listener.py).
"""

from collections.abc import Mapping
from contextlib import suppress

from kafka import errors as kafka_errors

from streamlstm.errors import AccessError
from streamlstm.transport.access import subject_of
from streamlstm.transport.listener import Listener, hosts_of, look_at, names_of
from streamlstm.transport.settings import ConnectionSettings
from streamlstm.transport.sockets import ClientCertificateError, UntrustedBrokerError

LOOK_SECONDS = 5.0

# OpenSSL's verdicts, x509_vfy.h
_NOT_YET_VALID, _EXPIRED, _REVOKED, _NO_REVOCATION_LIST = 9, 10, 23, 3
_OTHER_HOST = (62, 64)

Security = Mapping[str, str | bool]


def not_let_in(error: Exception, settings: ConnectionSettings, where: str) -> AccessError | None:
    """The refusal for an error of the first connection to a broker; None where it need not be one.

    `where` is the broker's host and port. Raises nothing: a listener that can't be asked is left out.
    """
    security = settings.security
    if isinstance(error, kafka_errors.SaslAuthenticationFailedError):
        return AccessError(
            f"{where} refuses the login of {_user(security)}: {_words(error)}; {_advice_on_login(security)}"
        )
    if isinstance(error, ClientCertificateError):
        return AccessError(_certificate_refused(error, security, where))
    found = _look(where)
    if isinstance(error, UntrustedBrokerError):
        return AccessError(_untrusted(error, security, where, found))
    if found is None:
        return None
    ours, mechanism = str(security.get("security_protocol", "PLAINTEXT")), security.get("sasl_mechanism")
    if ours.startswith("SASL") and found.mechanisms and mechanism not in found.mechanisms:
        return AccessError(
            f"{where} knows no login by {mechanism}; it offers {', '.join(found.mechanisms)}: change "
            f"kafka.security.sasl_mechanism"
        )
    is_certain = found.mechanisms is not None or found.encrypted is not ours.endswith("SSL")
    if is_certain and found.protocol != ours:
        return AccessError(
            f"{where} speaks {_spoken(found)}, and we speak {ours}: change kafka.security.security_protocol"
        )
    return None


def _look(where: str) -> Listener | None:
    host, _, port = where.rpartition(":")
    with suppress(ValueError):
        return look_at(host.strip("[]"), int(port), LOOK_SECONDS)
    return None


def _spoken(found: Listener) -> str:
    if found.mechanisms is None:
        return "TLS (SSL or SASL_SSL)" if found.encrypted else "no TLS (PLAINTEXT or SASL_PLAINTEXT)"
    return f"{found.protocol} ({', '.join(found.mechanisms)})" if found.mechanisms else found.protocol


def _words(error: Exception) -> str:
    """Without the names of classes that kafka-python puts before them."""
    return str(error.args[0]).rpartition("Error: ")[2] if error.args else type(error).__name__


def _user(security: Security) -> str:
    return repr(security.get("sasl_plain_username", "the Kerberos principal"))


def _advice_on_login(security: Security) -> str:
    if "sasl_plain_username" not in security:
        return "check kafka.security.sasl_kerberos_service_name and the Kerberos ticket"
    return (
        "check kafka.security.sasl_plain_username, the password in the file that "
        "kafka.security.sasl_plain_password_file names, and kafka.security.sasl_mechanism "
        f"({security.get('sasl_mechanism')}), for which the user must have a password"
    )


def _untrusted(error: UntrustedBrokerError, security: Security, where: str, found: Listener | None) -> str:
    certificate = found.certificate if found else {}
    code = error.cause.verify_code
    head = f"{where} can't be trusted: {error.cause.verify_message.rstrip('.')}"
    shown = f"; it presents {names_of(certificate)}"
    if code in _OTHER_HOST:
        return (
            f"{head}; its certificate is valid for {hosts_of(certificate)}: reach it by one of these "
            f"(kafka.bootstrap_servers, and the broker's advertised.listeners), or set "
            f"kafka.security.ssl_check_hostname = false"
        )
    if code in (_EXPIRED, _NOT_YET_VALID):
        return f"{head}{shown}: the broker needs a new certificate, unless the clock of this machine is wrong"
    if code == _REVOKED:
        return f"{head}{shown}: kafka.security.ssl_crlfile has it, so the broker needs a new certificate"
    if code == _NO_REVOCATION_LIST:
        return f"{head}{shown}: kafka.security.ssl_crlfile has no list of its issuer"
    trusted = security.get("ssl_cafile")
    has = f'"{trusted}"' if trusted else "unset, so the authorities of the system count"
    return f"{head}{shown}: put the certificate of its authority into kafka.security.ssl_cafile, which is {has}"


def _certificate_refused(error: ClientCertificateError, security: Security, where: str) -> str:
    certificate = security.get("ssl_certfile")
    if not certificate:
        return (
            f"{where} wants a client certificate ({_words(error)}): set kafka.security.ssl_certfile and "
            f"kafka.security.ssl_keyfile"
        )
    return (
        f"{where} refuses our certificate ({_words(error)}), that of {subject_of(str(certificate))} in "
        f'kafka.security.ssl_certfile, which is "{certificate}"; it must be valid now, and of an authority that the '
        f"brokers trust (ssl.truststore)"
    )
