"""Pieces of HTML. Everything that comes from a history or a file's name passes `escape` here."""

from collections.abc import Iterable, Sequence
from html import escape

from streamlstm.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page asks for nothing from elsewhere, and browsers hold it to that."""


def page(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def text(content: str) -> str:
    """Escaped, without what no text may hold."""
    return escape("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in content))


def heading(title: str, said: str) -> str:
    return f"<h2>{text(title)}</h2>\n<p>{text(said)}</p>"


def tile(value: str, label: str, kind: str = "") -> str:
    return f'<div class="tile"><b class="{kind}">{text(value)}</b><span>{text(label)}</span></div>'


def figure(title: str, keys: Sequence[tuple[str, str]], drawn: str, said: str = "", kind: str = "") -> str:
    """`keys`: the class of a colour and what is drawn in it."""
    legend = "".join(f'<span class="key {name}"><i></i>{text(label)}</span>' for name, label in keys)
    words = f"{text(said)}<br>" if said else ""
    return f'<figure class="{kind}"><h3>{text(title)}</h3><figcaption>{words}{legend}</figcaption>{drawn}</figure>'


def grid(parts: Iterable[str]) -> str:
    return '<div class="grid">\n' + "\n".join(parts) + "\n</div>"


Cell = str | tuple[str, str]
"""A text, or a text and its class."""


def table(names: Sequence[str], rows: Iterable[Sequence[Cell]], total: bool = False) -> str:
    """`total`: the last row sums the others up."""
    listed = [list(row) for row in rows]
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = ""
    for i, row in enumerate(listed):
        cells = "".join(_cell(cell) for cell in row)
        body += f'<tr class="{"total" if total and i == len(listed) - 1 else ""}">{cells}</tr>'
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    content, kind = (cell, "") if isinstance(cell, str) else cell
    return f'<td class="{kind}">{text(content)}</td>'
