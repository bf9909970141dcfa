"""The configuration: sources and their strength, every problem at once, and no secret anywhere."""

import re
import tomllib
from pathlib import Path

import pydantic
import pytest

from streamlstm.config import Config, load, render_toml
from streamlstm.config.section import example, expected
from streamlstm.config.sources import settings
from streamlstm.errors import ConfigError

CANARY = "canary-hunter2-canary"
SHIPPED = Path(__file__).parent.parent / "deploy" / "streamlstm.toml"


def problems_of(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, *overrides: str) -> list[str]:
    """The lines of the ConfigError, without the folder of the file."""
    path = tmp_path / "streamlstm.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, overrides)
    assert caught.value.exit_code == 78
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.problems]


def test_no_source_gives_the_defaults() -> None:
    assert load(None, {}) == Config()


def test_shipped_file_is_what_init_writes_and_gives_the_defaults() -> None:
    assert SHIPPED.read_text() == render_toml()
    assert load(SHIPPED, {}) == Config()


def test_shipped_file_names_and_explains_every_setting() -> None:
    lines = SHIPPED.read_text().splitlines()
    assert max(map(len, lines)) <= 120
    for key, field in settings().items():
        assert field.description, key
        section, name = key.rsplit(".", 1)
        at = lines.index(f"[{section}]")
        line = next(i for i in range(at, len(lines)) if lines[i].removeprefix("# ").startswith(f"{name} = "))
        assert lines[line - 1].startswith("# "), key


def test_every_example_is_accepted() -> None:
    """What stands commented out in the shipped file is a valid value of its setting."""
    for key, field in settings().items():
        if field.default is None and not key.startswith("kafka.security") and key != "input.start_timestamp_ms":
            config = load(None, {}, [f"{key}={example(field)}"])
            section, name = key.split(".")
            assert getattr(getattr(config, section), name) == example(field)


def test_strength_file_environment_command_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[commit]\ninterval_ms = 1\nmax_bytes = 70000\nrequest_timeout_ms = 900\n[input]\ntopic = "a"\n')
    environ = {"STREAMLSTM_COMMIT__INTERVAL_MS": "2", "STREAMLSTM_COMMIT__MAX_BYTES": "80_000", "UNRELATED": "x"}
    config = load(path, environ, ["commit.interval_ms=3"])
    assert (config.commit.interval_ms, config.commit.max_bytes, config.commit.request_timeout_ms) == (3, 80_000, 900)
    assert config.input.topic == "a"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("input.value_fields=a, b.c", ("a", "b.c")),
        ('input.value_fields=["a","b.c"]', ("a", "b.c")),
        ("kafka.bootstrap_servers=one:9092,[::1]:9093", ("one:9092", "[::1]:9093")),
        ("metrics.enabled=False", False),
        ("kafka.security.ssl_check_hostname=true", True),
        ("kafka.group_id=12", "12"),
        ("kafka.group_id=a=b", "a=b"),
        ("metrics.port=0", 0),
    ],
)
def test_texts_become_the_type_of_their_setting(override: str, value: object) -> None:
    found: object = load(None, {}, [override])
    for name in override.split("=", maxsplit=1)[0].split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_every_problem_at_once_with_place_found_and_expected(tmp_path: Path) -> None:
    text = """\
[kafka]
bootstrap_server = "x:1"
group_id = ""
[input]
topic = "a b"
format = "avro"
[commit]
interval_ms = 0
request_timeout_ms = "5"
[comit]
interval_ms = 3
[metrics]
port = true
[state]
max_streams = 1.5
"""
    environ = {"STREAMLSTM_LOG__LEVEL": "loud", "STREAMLSTM_NO__SUCH": "1"}
    found = problems_of(tmp_path, text, environ, "kafka.bootstrap_servers=h:99999", "input.time_fields=[]", "nothing")
    assert sorted(found) == sorted(
        [
            "streamlstm.toml:2: kafka.bootstrap_server: unknown key; did you mean kafka.bootstrap_servers?",
            'streamlstm.toml:3: kafka.group_id: found ""; expected a text that is not empty',
            'streamlstm.toml:5: input.topic: found "a b"; expected a topic name: 1 to 249 of a-z A-Z 0-9 . _ -',
            'streamlstm.toml:6: input.format: found "avro"; expected one of json, raw',
            "streamlstm.toml:8: commit.interval_ms: found 0; expected an integer from 1 to 60000",
            'streamlstm.toml:9: commit.request_timeout_ms: found "5"; expected an integer from 100 to 300000',
            "streamlstm.toml:11: comit.interval_ms: unknown key; did you mean commit.interval_ms?",
            "streamlstm.toml:13: metrics.port: found true; expected an integer from 0 to 65535",
            "streamlstm.toml:15: state.max_streams: found 1.5; expected an integer from 1 to 1000000000",
            'STREAMLSTM_LOG__LEVEL: log.level: found "loud"; expected one of debug, info, warning, error',
            "STREAMLSTM_NO__SUCH: no.such: unknown key; `streamlstm init` writes a file with every key",
            '--set: kafka.bootstrap_servers: found ["h:99999"]; expected a list of "host:port"',
            "--set: input.time_fields: found []; expected a list of field names or dotted paths",
            "--set: found no = after 'nothing'; expected section.key=value",
        ]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kafka = 3", "streamlstm.toml:1: kafka: unknown key; it is a table, with settings such as kafka.bootstrap"),
        ("[nothing]", "streamlstm.toml: nothing: unknown key; "),
        ("[kafka]\nsecurity = 1", "streamlstm.toml:2: kafka.security: unknown key; it is a table, with settings such"),
        ("[input.topic]\na = 1", "streamlstm.toml: input.topic: found {"),
        ("a = = 1", "streamlstm.toml: not TOML: "),
    ],
)
def test_shapes_that_are_not_ours(tmp_path: Path, text: str, problem: str) -> None:
    found = problems_of(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(problem)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory; `streamlstm init"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "latin.toml").write_bytes(b'[input]\ntopic = "\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8 at position 17"):
        load(tmp_path / "latin.toml", {})


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["commit.interval_ms=5000"], "commit.interval_ms: found 5000; expected less than commit.request_timeout_ms"),
        (["commit.request_timeout_ms=15000"], "expected less than commit.transaction_timeout_ms (15000)"),
        (["commit.transaction_timeout_ms=45000"], "expected less than kafka.session_timeout_ms (45000)"),
        (["kafka.max_poll_interval_ms=44999"], "expected at least kafka.session_timeout_ms (45000)"),
        (["kafka.heartbeat_interval_ms=15001"], "expected at most a third of kafka.session_timeout_ms (45000)"),
        (["fetch.max_wait_ms=5000"], "fetch.max_wait_ms: found 5000; expected less than commit.request_timeout_ms"),
        (["output.topic=events"], 'output.topic: found "events"; expected another topic than input.topic'),
        (["dead_letter.topic=forecasts"], "expected another topic than output.topic"),
        (["input.start=timestamp"], "input.start_timestamp_ms: found nothing (the default); expected a time"),
        (["input.start_timestamp_ms=5"], 'input.start: found "earliest" (the default); expected "timestamp"'),
        (["fetch.max_partition_bytes=20000000"], "expected at most fetch.max_bytes (4194304)"),
        (["fetch.min_bytes=20000000"], "fetch.min_bytes: found 20000000; expected at most fetch.max_bytes"),
        (["input.value_fields=a..b"], 'input.value_fields: found "a..b"; expected names separated by single dots'),
        (["input.value_fields=ts"], 'input.value_fields: found "ts"; expected a field that input.time_fields'),
        (["input.format=raw", "input.stream_source=field"], 'input.stream_source: found "field"; expected "auto"'),
        (["kafka.security.sasl_mechanism=PLAIN"], 'sasl_mechanism: found "PLAIN"; expected nothing'),
        (["kafka.security.ssl_cafile=/dev/null"], 'ssl_cafile: found "/dev/null"; expected nothing, with'),
        (["kafka.security.security_protocol=SASL_SSL"], "kafka.security.sasl_mechanism: found nothing"),
    ],
)
def test_settings_that_do_not_go_together(overrides: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, overrides)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]
    assert caught.value.problems[0].startswith("--set: ")


def test_a_wrong_value_does_not_raise_a_second_problem_elsewhere() -> None:
    """The ladder isn't checked against a value that is already refused."""
    with pytest.raises(ConfigError) as caught:
        load(None, {}, ["commit.request_timeout_ms=-1", "commit.transaction_timeout_ms=1000"])
    assert len(caught.value.problems) == 1


def test_low_latency_as_the_comment_says() -> None:
    assert load(None, {}, ["commit.interval_ms=10"]).commit.interval_ms == 10


class TestSecurity:
    def settings(self, tmp_path: Path) -> list[str]:
        secret = tmp_path / "password"
        secret.write_text(CANARY + "\n")
        return [
            "kafka.security.security_protocol=SASL_PLAINTEXT",
            "kafka.security.sasl_mechanism=SCRAM-SHA-512",
            "kafka.security.sasl_plain_username=me",
            f"kafka.security.sasl_plain_password_file={secret}",
        ]

    def test_passes_through_under_the_names_of_kafka_python(self, tmp_path: Path) -> None:
        assert load(None, {}, self.settings(tmp_path)).kafka.security.client_settings() == {
            "security_protocol": "SASL_PLAINTEXT",
            "ssl_check_hostname": True,
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "me",
            "sasl_plain_password": CANARY,
        }

    def test_every_name_is_one_of_kafka_pythons(self, tmp_path: Path) -> None:
        from kafka import KafkaConsumer

        from streamlstm.config.security import SECRETS, Security

        plain = {file_name: name for name, file_name in SECRETS.items()}
        assert {plain.get(name, name) for name in Security.model_fields} <= set(KafkaConsumer.DEFAULT_CONFIG)

    def test_secret_appears_in_no_text_of_the_configuration(self, tmp_path: Path) -> None:
        config = load(None, {}, self.settings(tmp_path))
        for text in (repr(config), str(config), config.model_dump_json(), repr(config.kafka.security)):
            assert CANARY not in text

    @pytest.mark.parametrize("name", ["sasl_plain_password", "ssl_password", "sasl_plain_pasword"])
    def test_secret_given_directly_is_refused_and_not_repeated(self, tmp_path: Path, name: str) -> None:
        text = f'[kafka.security]\n{name} = "{CANARY}"\n'
        environ = {f"STREAMLSTM_KAFKA__SECURITY__{name.upper()}": CANARY}
        found = problems_of(tmp_path, text, environ, f"kafka.security.{name}={CANARY}")
        assert CANARY not in "\n".join(found)
        assert f"kafka.security.{name}: unknown key; " in found[0]
        assert "_file" in found[0]

    @pytest.mark.parametrize(
        ("content", "trouble"), [(None, "No such file"), (b"", "empty"), (b"\n", "empty"), (b"\xff", "not UTF-8")]
    )
    def test_secret_file_that_is_no_use(self, tmp_path: Path, content: bytes | None, trouble: str) -> None:
        overrides = self.settings(tmp_path)
        path = tmp_path / "password"
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ConfigError, match=trouble):
            load(None, {}, overrides)

    def test_login_without_its_parts(self) -> None:
        with pytest.raises(ConfigError) as caught:
            load(None, {}, ["kafka.security.security_protocol=SASL_SSL", "kafka.security.sasl_mechanism=PLAIN"])
        assert [line.split(":")[1] for line in caught.value.problems] == [
            " kafka.security.sasl_plain_username",
            " kafka.security.sasl_plain_password_file",
        ]

    def test_key_without_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("k")
        with pytest.raises(ConfigError, match="ssl_certfile: found nothing"):
            load(None, {}, ["kafka.security.security_protocol=SSL", f"kafka.security.ssl_keyfile={tmp_path / 'key'}"])


class TestEnvironment:
    def test_nested_section(self) -> None:
        environ = {"STREAMLSTM_KAFKA__SECURITY__SSL_CHECK_HOSTNAME": "false"}
        assert load(None, environ).kafka.security.ssl_check_hostname is False

    def test_one_underscore_is_a_mistake_and_said(self) -> None:
        with pytest.raises(ConfigError, match="STREAMLSTM_INPUT_TOPIC: not a setting; did you mean STREAMLSTM_INPUT__"):
            load(None, {"STREAMLSTM_INPUT_TOPIC": "x"})

    def test_what_kubernetes_sets_for_a_service_is_left_alone(self) -> None:
        environ = {
            "STREAMLSTM_METRICS_PORT": "tcp://10.0.0.1:9464",
            "STREAMLSTM_METRICS_SERVICE_HOST": "10.0.0.1",
            "STREAMLSTM_SERVICE_PORT": "9464",
            "STREAMLSTM_CACHE_DIR": "/var/cache",
        }
        assert load(None, environ) == Config()


def test_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        Config().commit.interval_ms = 3


def test_every_setting_says_what_it_expects() -> None:
    for key, field in settings().items():
        assert expected(field), key
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            assert "from" in expected(field), key


def test_shipped_file_is_toml_of_known_tables() -> None:
    assert set(tomllib.loads(SHIPPED.read_text())) == set(Config.model_fields)


def test_no_setting_is_dead() -> None:
    """Each setting is read somewhere outside streamlstm/config. `security` is handed on whole."""
    house = Path(__file__).parent.parent / "streamlstm"
    readers = [path.read_text() for path in house.rglob("*.py") if path.parent.name != "config"]
    read = {name for text in readers for name in re.findall(r"\.([a-z_]+)\b", text)}
    unread = [key for key in settings() if not key.startswith("kafka.security") and key.rsplit(".")[-1] not in read]
    assert not unread
