"""doctor: what a good operator would check."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamlstm.cli.options import config_options, load_cluster_config
from streamlstm.cli.progress import progress_bar

if TYPE_CHECKING:
    from streamlstm.service.doctor_findings import Finding, Section

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "bright_black"}


@click.command()
@config_options
@click.option("--quick", is_flag=True, help="Leave out what computes or reads much: the kernels and the snapshots.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
def doctor(config_file: Path | None, overrides: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Look over host, brokers, topics, group and state.

    Advice beside a running daemon or before its start: what was found, what is better, and what mends it. Joins no
    group and writes nothing but the kernel cache. Ends with 0 unless something fails; `check` is for scripts that start
    a daemon.
    """
    config = load_cluster_config(config_file, overrides)
    from streamlstm.service.doctor import examine
    from streamlstm.service.doctor_findings import exit_code

    sections = []
    for section in examine(config, quick=quick, bar=progress_bar):
        sections.append(section)
        for line in _as_json(section) if as_json else _as_text(section):
            click.echo(line)
    if not as_json:
        click.echo(_summary(sections))
    return exit_code(sections)


def _as_json(section: "Section") -> Iterator[str]:
    for finding in section.findings:
        yield json.dumps({"area": section.area, **asdict(finding)})


def _as_text(section: "Section") -> Iterator[str]:
    yield click.style(section.area, bold=True)
    for finding in section.findings:
        level = click.style(f"{finding.level:<7}", fg=COLOURS[finding.level])
        yield f"  {level}  {finding.about}: {_said(finding)}"
        if finding.fix:
            yield f"           fix: {finding.fix}"


def _said(finding: "Finding") -> str:
    return f"{finding.found}; expected {finding.expected}" if finding.expected else finding.found


def _summary(sections: "list[Section]") -> str:
    levels = [str(finding.level) for section in sections for finding in section.findings]
    return ", ".join(f"{levels.count(level)} {level}" for level in COLOURS if level in levels)
