"""What changes between two hosts, for all packets: exact regions of header space, or a proof that nothing does.

``compute.py`` finds the sets that fare differently, ``model.py`` is what comes out; ``kinds.py`` gathers regions of one
shape, ``text.py`` and ``export.py`` put everything into words and tables.
"""

from __future__ import annotations

from fastpath.analysis.diff.compute import diff
from fastpath.analysis.diff.model import Diff, Difference, Side

__all__ = ["Diff", "Difference", "Side", "diff"]
