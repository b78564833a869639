"""Who reaches what on a Docker host: every container, the host and the outside against every port, with the reason."""

from fastpath.docker.reach.compare import CellChange, ChainChange, Comparison, compare_topologies
from fastpath.docker.reach.matrix import Cell, How, Reachability, reachability
from fastpath.docker.reach.parties import Source, Target

__all__ = [
    "Cell", "CellChange", "ChainChange", "Comparison", "How", "Reachability", "Source", "Target", "compare_topologies",
    "reachability",
]
