"""From file, environment and command line to one `Config`, or to every problem at once.

Strength: the file < environment variables STREAMLSTM_SECTION__KEY < `--set section.key=value`.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from streamlstm.config.checks import cross_problems
from streamlstm.config.section import Section, expected, plain_type, table_of
from streamlstm.config.sections import Config
from streamlstm.config.security import SECRETS
from streamlstm.errors import ConfigError

PREFIX = "STREAMLSTM_"


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it was given, for the message: `streamlstm.toml:12`, a variable, or `--set`."""

    value: object
    source: str


def load(path: Path | None, environ: Mapping[str, str], overrides: Iterable[str] = ()) -> Config:
    """Read the configuration.

    `path` None means no file; `overrides` are the texts of `--set`. Raises ConfigError with one line for each problem:
    where it was given, the key, what was found and what was expected.
    """
    problems: list[str] = []
    given: dict[str, Given] = {}
    for key, value in [
        *_from_file(path, problems),
        *_from_environment(environ, problems),
        *_from_overrides(overrides, problems),
    ]:
        given[key] = value
    known = _known_only(given, problems)
    config, failed = _validate(known, problems)
    for problem in cross_problems(config):
        if not failed.intersection(problem.keys):
            source = next((known[key].source for key in problem.keys if key in known), "default")
            default = "" if problem.keys[0] in known else " (the default)"
            problems.append(_line(source, problem.keys[0], problem.found + default, problem.expected))
    if problems:
        raise ConfigError(problems)
    return config


def settings() -> dict[str, FieldInfo]:
    """Every setting by its dotted key, in the order of the file."""
    return dict(_walk(Config, ""))


def _walk(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        table = table_of(field)
        if table:
            yield from _walk(table, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _tables() -> set[str]:
    """The dotted names of every table: kafka, kafka.security, input, ..."""
    keys = [key.split(".")[:-1] for key in settings()]
    return {".".join(path[: n + 1]) for path in keys for n in range(len(path))}


def _line(source: str, key: str, found: str, expectation: str) -> str:
    return f"{source}: {key}: found {found}; expected {expectation}"


def _from_file(path: Path | None, problems: list[str]) -> Iterator[tuple[str, Given]]:
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}; `streamlstm init {path}` writes one")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: found bytes that are not UTF-8 at position {error.start}; expected TOML in UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not TOML: {error}")
    else:
        lines = _line_numbers(text)
        for key, value in _flatten(tables, ""):
            at = f"{path}:{lines[key]}" if key in lines else str(path)
            yield key, Given(value, at)


def _flatten(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    tables = _tables()
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and (key in tables or (not prefix and value)):
            yield from _flatten(value, key + ".")
        else:
            yield key, value


def _line_numbers(text: str) -> dict[str, int]:
    """Dotted key -> line, for the plain layout of tables and `key = value` lines; other layouts go without."""
    section, found = "", {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]", line):
            section = header[1] + "."
        elif assignment := re.match(r"\s*([A-Za-z0-9_.-]+)\s*=", line):
            found[section + assignment[1]] = number
    return found


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, Given]]:
    known = settings()
    flat = {key.replace(".", "_"): key for key in known}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        name, text = variable.removeprefix(PREFIX).lower(), environ[variable]
        if "__" in name:
            key = name.replace("__", ".")
            yield key, Given(_parse(known.get(key), text), variable)
        elif name in flat and not re.match("(tcp|udp|sctp)://", text):
            # Kubernetes sets such variables for a service called streamlstm-..., with an address as the value.
            wanted = PREFIX + flat[name].replace(".", "__").upper()
            problems.append(f"{variable}: not a setting; did you mean {wanted} (two underscores after a section)?")


def _from_overrides(overrides: Iterable[str], problems: list[str]) -> Iterator[tuple[str, Given]]:
    known = settings()
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        if equals:
            yield key, Given(_parse(known.get(key), value.strip()), "--set")
        else:
            problems.append(f"--set: found no = after {key!r}; expected section.key=value")


def _parse(field: FieldInfo | None, text: str) -> object:
    """The text of a variable or of --set as the type of its setting; what can't be one stays a text to complain of."""
    kind = plain_type(field) if field else str
    if kind is int and re.fullmatch(r"[+-]?[0-9][0-9_]*", text):
        return int(text)
    if kind is float:
        with suppress(ValueError):
            return float(text)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if get_origin(kind) is tuple:
        if not text.startswith("["):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        try:
            return tomllib.loads(f"list = {text}")["list"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _known_only(given: Mapping[str, Given], problems: list[str]) -> dict[str, Given]:
    """Report the unknown keys, never with their value: it may be a secret under a misspelled name."""
    known = settings()
    for key, value in given.items():
        if key in known:
            continue
        name = key.rsplit(".", 1)[-1]
        if key in _tables():
            advice = f"it is a table, with settings such as {next(full for full in known if full.startswith(key))}"
        elif name in SECRETS:
            advice = f"put the secret in a file and name it with {SECRETS[name]}"
        else:
            advice = _near_miss(key, list(known))
        problems.append(f"{value.source}: {key}: unknown key; {advice}")
    return {key: value for key, value in given.items() if key in known}


def _near_miss(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1, 0.75)
    if not close:
        name = key.rsplit(".", 1)[-1]
        names: dict[str, list[str]] = {}
        for full in known:
            names.setdefault(full.rsplit(".", 1)[-1], []).append(full)
        close = [names[near][0] for near in difflib.get_close_matches(name, names, 1, 0.8)]
    return f"did you mean {close[0]}?" if close else "`streamlstm init` writes a file with every key"


def _validate(known: Mapping[str, Given], problems: list[str]) -> tuple[Config, set[str]]:
    """The configuration without the values that are wrong, which are reported, and the keys of those."""
    fields, failed = settings(), set[str]()
    try:
        return Config.model_validate(_nested(known)), failed
    except ValidationError as errors:
        for error in errors.errors(include_url=False, include_context=False):
            key = _key_at(error["loc"], fields)
            if key not in failed:
                failed.add(key)
                given = known[key]
                problems.append(_line(given.source, key, shown(given.value), expected(fields[key])))
    rest = {key: value for key, value in known.items() if key not in failed}
    return Config.model_validate(_nested(rest)), failed


def _key_at(location: tuple[int | str, ...], fields: Mapping[str, FieldInfo]) -> str:
    """The setting at a place pydantic names; deeper parts are the items of a list."""
    paths = (".".join(map(str, location[:depth])) for depth in range(1, len(location) + 1))
    return next(path for path in paths if path in fields)


def _nested(given: Mapping[str, Given]) -> dict[str, object]:
    tables: dict[str, object] = {}
    for key, value in given.items():
        *sections, name = key.split(".")
        table = tables
        for section in sections:
            inner = table.setdefault(section, {})
            assert isinstance(inner, dict)
            table = inner
        table[name] = tuple(value.value) if isinstance(value.value, list) else value.value
    return tables


def shown(value: object) -> str:
    """A wrong value for a message, as TOML writes it; cut when long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
