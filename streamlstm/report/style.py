"""Colours and type of the report. Plots name colours that nobody would draw with; the page gives them their values, so
that light, dark and paper need no second plot.
"""

from typing import NamedTuple


class Colour(NamedTuple):
    """`drawn` stands in a plot, `name` in the page's style; `light` and `dark` are what is seen."""

    name: str
    drawn: str
    light: str
    dark: str


INK = Colour("ink", "#000a01", "#1a1d21", "#e8eaed")
MUTED = Colour("muted", "#000a02", "#6b7280", "#9aa4b2")
GRID = Colour("grid", "#000a03", "#e7e9ec", "#2a3037")
MODEL = Colour("model", "#000a04", "#2b5fd9", "#86aaff")
NAIVE = Colour("naive", "#000a05", "#c9740c", "#f0b05a")
SEASONAL = Colour("seasonal", "#000a06", "#0b8a7d", "#4fcfc0")
GOOD = Colour("good", "#000a07", "#1a7f45", "#5fd38d")
BAD = Colour("bad", "#000a08", "#c0322b", "#ff8a80")
CARD = Colour("card", "#000a09", "#ffffff", "#181c22")
PAGE = Colour("page", "#000a0a", "#f6f6f4", "#101317")

COLOURS = (INK, MUTED, GRID, MODEL, NAIVE, SEASONAL, GOOD, BAD, CARD, PAGE)


def _variables(dark: bool) -> str:
    return " ".join(f"--{each.name}: {each.dark if dark else each.light};" for each in COLOURS)


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(False)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(True)} }} }}
@media print {{ :root {{ {_variables(False)} --page: #fff; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 Inter, system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }}
main {{ max-width: 1120px; margin: 0 auto; padding: 48px 28px 64px; }}
header p {{ margin: 0; color: var(--muted); }}
h1 {{ font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 4px 0 6px; overflow-wrap: anywhere; }}
h2 {{ font-size: 19px; letter-spacing: -.01em; margin: 44px 0 4px; }}
h2 + p {{ margin: 0 0 14px; color: var(--muted); max-width: 76ch; }}
h3 {{ font-size: 14px; font-weight: 600; margin: 0 0 2px; overflow-wrap: anywhere; }}
.eyebrow {{ font-size: 12px; letter-spacing: .09em; text-transform: uppercase; }}
.verdict {{ margin: 26px 0 18px; padding: 20px 24px; background: var(--card); border-radius: 12px;
  border: 1px solid var(--grid); border-left: 6px solid var(--naive); }}
.verdict.good {{ border-left-color: var(--good); }} .verdict.bad {{ border-left-color: var(--bad); }}
.verdict strong {{ display: block; font-size: 21px; line-height: 1.35; letter-spacing: -.01em; font-weight: 600; }}
.verdict ul {{ margin: 8px 0 0; padding: 0; list-style: none; color: var(--muted); }}
.tiles {{ display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 12px; }}
.tile {{ background: var(--card); border: 1px solid var(--grid); border-radius: 12px; padding: 14px 16px; }}
.tile b {{ display: block; font-size: 26px; line-height: 1.25; letter-spacing: -.02em; font-weight: 600; }}
.tile span {{ color: var(--muted); font-size: 13px; }}
.tile .good {{ color: var(--good); }} .tile .bad {{ color: var(--bad); }}
.grid {{ display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }}
.grid > .wide {{ grid-column: 1 / -1; }}
figure, .card {{ margin: 0; background: var(--card); border: 1px solid var(--grid); border-radius: 12px;
  padding: 16px 18px; break-inside: avoid; min-width: 0; }}
figcaption {{ color: var(--muted); font-size: 13px; margin-bottom: 6px; }}
figure svg {{ display: block; width: 100%; height: auto; }}
figure svg text {{ font-family: Inter, system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 13.5px; }}
th {{ color: var(--muted); font-weight: 500; text-align: right; padding: 4px 10px 6px; white-space: nowrap; }}
td {{ text-align: right; padding: 4px 10px; border-top: 1px solid var(--grid); white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
td:first-child {{ max-width: 260px; overflow: hidden; text-overflow: ellipsis; }}
th:last-child, td:last-child {{ padding-right: 0; }}
tr.total td {{ font-weight: 600; border-top: 2px solid var(--grid); }}
td.good {{ color: var(--good); }} td.bad {{ color: var(--bad); }}
.key {{ display: inline-flex; gap: 6px; align-items: center; margin-right: 14px; }}
.key i {{ width: 14px; height: 3px; border-radius: 2px; background: currentColor; }}
.key.ink i {{ background: var(--ink); }} .key.model i {{ background: var(--model); }}
.key.naive i {{ background: var(--naive); }} .key.seasonal i {{ background: var(--seasonal); }}
.key.band i {{ background: var(--model); opacity: .25; height: 10px; }}
.key.bad i {{ background: var(--bad); }} .key.good i {{ background: var(--good); }}
.key.muted i {{ background: var(--muted); }}
footer {{ margin-top: 48px; padding-top: 18px; border-top: 1px solid var(--grid); color: var(--muted);
  font-size: 13px; }}
footer dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 0 0 16px; }}
footer dt {{ color: var(--ink); }} footer dd {{ margin: 0; }}
footer li {{ overflow-wrap: anywhere; }}
@media (max-width: 760px) {{ .grid {{ grid-template-columns: minmax(0, 1fr); }} main {{ padding: 28px 16px; }}
  .tiles {{ grid-template-columns: repeat(2, minmax(0, 1fr)); }} }}
@media print {{ body {{ font-size: 11.5px; }} main {{ max-width: none; padding: 0; }} h2 {{ break-after: avoid; }}
  .verdict, .tile, figure, .card {{ border-radius: 6px; }} }}
"""
