"""A figure of matplotlib as SVG to stand within a page: its colours are the page's, its letters text."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from streamlstm.report.style import CARD, COLOURS, GRID, INK, MUTED

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # ships with matplotlib: measures are the same everywhere
    "font.size": 9,
    "text.color": INK.drawn,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.edgecolor": GRID.drawn,
    "axes.labelcolor": MUTED.drawn,
    "axes.labelsize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 6),
    "grid.color": GRID.drawn,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED.drawn,
    "ytick.color": MUTED.drawn,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "patch.edgecolor": CARD.drawn,
    "path.simplify": True,
}
_HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_SIZE = re.compile(r'(<svg[^>]*?) width="[^"]*"|(<svg[^>]*?) height="[^"]*"')
_FONT = re.compile(r"font-family: [^;\"]*;? ?")
_NAMESPACE = re.compile(r' xmlns(?::[a-z]+)?="[^"]*"')
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r"(?<=#)[A-Za-z_][\w.-]*")
_COLOUR = re.compile("|".join(each.drawn for each in COLOURS))
_NAMES = {each.drawn: f"var(--{each.name})" for each in COLOURS}


def svg(name: str, title: str, draw: Callable[[Axes], None], width: float, height: float) -> str:
    """What `draw` makes on one panel of `width` x `height` inches. `name` is unique in the page; `title` is for those
    who can't see it.
    """
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _for_a_page(text.getvalue(), name, title)


def _for_a_page(text: str, name: str, title: str) -> str:
    plain = _HEAD.sub("", text)
    for _ in range(2):
        plain = _SIZE.sub(lambda found: found[1] or found[2], plain, count=1)
    plain = _NAMESPACE.sub("", _FONT.sub("", plain))
    plain = _COLOUR.sub(lambda found: _NAMES[found[0]], plain)
    used = set(_USED.findall(plain))
    plain = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", plain)
    plain = _USED.sub(lambda found: f"{name}-{found[0]}", plain)
    # presentation attributes don't take variables, declarations do
    plain = re.sub(r'(fill|stroke)="(var\(--[a-z]+\))"', r'style="\1: \2"', plain)
    return plain.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()
