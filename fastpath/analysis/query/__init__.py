"""Questions about all packets at once: conditions, queries, and assertions for tests.

``conditions.py`` is the tree that a condition is, ``fields.py`` what it can ask for, ``text.py`` its written form,
``names.py`` what names stand for, ``masks.py`` and ``sets.py`` its two meanings: on columns of packets, and as a set of
packets.
"""

from fastpath.analysis.query.conditions import Condition
from fastpath.analysis.query.fields import field
from fastpath.analysis.query.masks import mask
from fastpath.analysis.query.names import Names
from fastpath.analysis.query.text import parse_condition

__all__ = ["Condition", "Names", "field", "mask", "parse_condition"]
