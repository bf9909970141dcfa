"""README.md and docs/ say nothing that isn't there: commands, options, settings, links, figures that a script makes."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from streamlstm.cli.main import commands
from streamlstm.config import load
from streamlstm.config.sources import settings
from streamlstm.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAM = "streamlstm"

sys.path.insert(0, str(ROOT / "benchmarks"))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of each fenced `streamlstm ..`: up to a comment, a pipe or the next command."""
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(rf"\s*(\S*/)?{PROGRAM}\s", line):
                words = shlex.split(line, comments=True)
                end = next((n for n, word in enumerate(words) if set(word) <= set("|;&>")), len(words))
                yield words[1:end]


def parse(arguments: list[str]) -> None:
    """As the program would, without doing it. Raises click.ClickException for a command or option that isn't there."""
    group: click.Command = commands
    context = click.Context(commands, info_name=PROGRAM)
    while isinstance(group, click.Group) and arguments and not arguments[0].startswith("-"):
        found = group.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]!r}")
        group, arguments = found, arguments[1:]
    with suppress(click.exceptions.Exit):  # --help, --version
        group.make_context(PROGRAM, list(arguments), parent=context)


@pytest.mark.parametrize(
    "line", ["bogus", "check --bogus", "state", "state bogus", "forecast", "size --streams none", "run now"]
)
def test_a_command_that_is_not_there_is_seen(line: str) -> None:
    (arguments,) = command_lines(f"text\n```\n.venv/bin/streamlstm {line}   # comment\n```\n")
    with pytest.raises(click.ClickException):
        parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_those_of_the_program(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in command_lines(page.read_text()):
        try:
            parse(arguments)
        except click.ClickException as error:
            pytest.fail(f"{name(page)}: {PROGRAM} {shlex.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_too(page: Path) -> None:
    for words in re.findall(rf"`{PROGRAM} ([a-z][a-z-]*)", page.read_text()):
        assert words in commands.commands, f"{name(page)}: `{PROGRAM} {words}`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_load(page: Path, tmp_path: Path) -> None:
    """Each TOML block with a table of ours; files that it names needn't be here."""
    for language, block in FENCE.findall(page.read_text()):
        if language != "toml":
            continue
        (tmp_path / "streamlstm.toml").write_text(block)
        try:
            load(tmp_path / "streamlstm.toml", {})
        except ConfigError as error:
            problems = [line for line in error.problems if "No such file or directory" not in line]
            assert not problems, f"{name(page)}: {problems}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_in_the_text_are_there(page: Path) -> None:
    """`section.key`, where the section is one of ours."""
    known = settings()
    sections = {key.split(".")[0] for key in known}
    for found in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)(?: = [^`]*)?`", page.read_text()):
        if found.split(".")[0] in sections and not re.search(r"\.(toml|md|py|sh)$", found):
            tables = any(key.startswith(f"{found}.") for key in known)
            assert found in known or tables, f"{name(page)}: `{found}`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    without_code = FENCE.sub("", page.read_text())
    missing = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code)
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert not missing, f"{name(page)}: {missing}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_tests_that_are_named_are_there() -> None:
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"\btests/[\w/]+\.py", text):
            assert (ROOT / path).is_file(), f"{name(page)}: {path}"
        for script in re.findall(r"\bbenchmarks/\w+\.py", text):
            assert (ROOT / script).is_file(), f"{name(page)}: {script}"


def test_the_capacity_table_is_current() -> None:
    import capacity

    page = capacity.PAGE.read_text()
    assert page == capacity.with_table(page, capacity.README.read_text()), "benchmarks/capacity.py --write"


def logged() -> dict[str, str]:
    """Message -> level, of everything the program logs as a warning or an error in words of its own."""
    found = {}
    for path in sorted((ROOT / "streamlstm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            said = node.args[0]
            is_log = node.func.attr in ("warning", "error") and ast.unparse(node.func.value) == "log"
            if is_log and isinstance(said, ast.Constant) and isinstance(said.value, str):
                found[said.value] = node.func.attr
    return found


def test_every_warning_and_error_is_in_troubleshoot() -> None:
    text = (ROOT / "docs" / "troubleshoot.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` \| (warning|error) \|", text, re.MULTILINE))
    assert rows == logged()


def test_every_exit_code_is_in_troubleshoot() -> None:
    from streamlstm import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    text = (ROOT / "docs" / "troubleshoot.md").read_text()
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
