"""Numbers as Grafana writes them, in the units that the dashboards have."""

import math

_COUNTS = {"short": "", "eps": " evt/s", "cps": " c/s"}
_SI = ((1e12, " T"), (1e9, " Bil"), (1e6, " Mil"), (1e3, " K"), (1.0, ""))
_RATES = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K"), (1.0, ""))
_SECONDS = ((86400, " days"), (3600, " hours"), (60, " mins"), (1, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns"))
_IEC = ((2.0**40, " TiB"), (2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1.0, " B"))
_BYTES = ((1e12, " TB/s"), (1e9, " GB/s"), (1e6, " MB/s"), (1e3, " kB/s"), (1.0, " B/s"))


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Raises KeyError for a unit that the dashboards don't have."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf"
    if unit == "none":
        return _number(value, decimals)
    if unit == "percentunit":
        return _number(100 * value, decimals) + "%"
    if unit in _COUNTS:
        return _scaled(value, _SI if unit == "short" else _RATES, decimals) + _COUNTS[unit]
    return _scaled(value, {"s": _SECONDS, "bytes": _IEC, "Bps": _BYTES}[unit], decimals)


def _scaled(value: float, scale: tuple[tuple[float, str], ...], decimals: int | None) -> str:
    fits = next((step for step in scale if abs(value) >= step[0]), None)
    factor, name = fits or (scale[-1] if value else next(step for step in scale if step[0] == 1))
    return _number(value / factor, decimals) + name


def _number(value: float, decimals: int | None) -> str:
    """Three significant digits, unless told."""
    if decimals is None:
        size = math.floor(math.log10(abs(value))) if value else 0
        decimals = max(0, 2 - size)
        return f"{value:.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:.0f}"
    return f"{value:.{decimals}f}"
