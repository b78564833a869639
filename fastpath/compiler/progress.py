"""How far a compilation is: steps of very different kinds as one growing part of the whole.

The parts are estimates, made of the numbers of rules and terms: they say that it goes on, and about how fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

CompileProgress: TypeAlias = Callable[[str, float], None]
"""Called with what is being done and the part of the whole that is done, from 0 to 1; the latter never falls."""

RULES, FIELDS, STAGES = 0.35, 0.4, 0.95
"""Part that is done when all rules are read, when their values are classified, when every stage has its tables."""

STEP = 0.002
"""The least growth worth a call."""


class Meter:
    """Counts what a compilation does.

    Args:
        tell: whom to tell, None for nobody.
        rules: about how many rules there are to be read, each once for each hook that comes by.
    """

    def __init__(self, tell: CompileProgress | None = None, rules: int = 0) -> None:
        self._tell = tell
        self._expected = max(1, rules)
        self._rules = 0
        self._said = -1.0
        self._what = ""
        self._weights: dict[str, float] = {}
        self._parts: dict[str, float] = {}

    def rule(self) -> None:
        """One more rule is read."""
        self._rules += 1
        if self._tell is not None and not self._rules & 255:
            self._say("rules", RULES * min(1.0, self._rules / self._expected))

    def fields(self) -> None:
        """All rules are read, their values are classified."""
        self._say("values", RULES)

    def stages(self, weights: Mapping[str, float]) -> None:
        """The stages begin; each takes about so long, in any unit."""
        whole = sum(weights.values()) or 1.0
        self._weights = {name: weight / whole for name, weight in weights.items()}
        self._say("values", FIELDS)

    def stage(self, name: str, part: float) -> None:
        """So much of a stage is done; what is tried again begins anew, which goes unsaid."""
        self._parts[name] = max(part, self._parts.get(name, 0.0))
        done = sum(self._weights.get(stage, 0.0) * part for stage, part in self._parts.items())
        self._say(f"stage {name}", FIELDS + (STAGES - FIELDS) * min(1.0, done))

    def done(self) -> None:
        """Everything is done."""
        self._say("tables", 1.0)

    def _say(self, what: str, part: float) -> None:
        if self._tell is None:
            return
        part = max(part, self._said)
        if part >= self._said + STEP or what != self._what or part >= 1.0 > self._said:
            self._said, self._what = part, what
            self._tell(what, part)
