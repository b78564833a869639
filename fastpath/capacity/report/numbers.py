"""Numbers for people: a few figures, with units."""

from __future__ import annotations

import math


def count(number: float) -> str:
    """A number of things: ``1,234,567``, ``3.25``."""
    if math.isinf(number):
        return "no limit"
    if number >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.3g}"


def share(part: float) -> str:
    """A part of one: ``12.3 %``, ``< 0.01 %``."""
    percent = 100 * part
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:,.0f} %" if percent >= 100 else f"{percent:.3g} %"


def size(number: float) -> str:
    """Bytes: ``12.3 MiB``."""
    for factor, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}" if number / factor < 1000 else f"{number / factor:,.0f} {unit}"
    return f"{number:.0f} bytes"


def span(seconds: float) -> str:
    """A time: ``1.5 s``, ``12 min``, ``5 days``."""
    if math.isinf(seconds):
        return "never"
    for factor, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 3 * factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def times(factor: float) -> str:
    """A growth factor: ``3.2 times``."""
    if math.isinf(factor):
        return "no limit met"
    return f"{factor:,.0f} times" if factor >= 100 else f"{factor:.3g} times"
