"""What the commands' printed tables share: the console, titles, shares and round numbers."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def console() -> Console:
    """Standard output; text is printed as it stands (rules hold brackets, colons and numbers of their own).

    Where it is not a terminal, lines are not cut at 80 columns.
    """
    screen = Console(markup=False, highlight=False, emoji=False)
    if not screen.is_terminal:
        screen = Console(markup=False, highlight=False, emoji=False, width=240)
    return screen


def title(text: str) -> Text:
    """A table's title."""
    return Text(text, style="bold")


def percent(part: int, whole: int) -> str:
    """A share such as ``12.3%``; shares that would round to nothing are shown as ``<0.1%``."""
    if not part or not whole:
        return "0%"
    share = 100 * part / whole
    return "<0.1%" if share < 0.05 else f"{share:.1f}%"


def quantity(number: float) -> str:
    """A number with three figures and a decimal prefix: ``31.2 M``."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "
