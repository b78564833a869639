"""Docker Engine versions as users write them: ``28.5``, ``27``, ``17.06.0-ce``, ``20.10.24+dfsg1``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from fastpath.docker.errors import TopologyError

_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-+~].*)?\Z", re.ASCII)
_LATEST = 999
FIRST, LAST_MAJOR = (1, 0, 0), 29
"""Oldest version and newest major version whose rules are known here."""


@dataclass(frozen=True, slots=True, order=True)
class Engine:
    """An engine's version; compare it with tuples through :meth:`since`.

    Parts that were left out count as the latest of their line: ``28`` has the rules of the last 28.x.
    """

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Engine:
        """The version of `text`.

        Raises:
            TopologyError: no version, or one whose rules are not known.
        """
        found = _VERSION.match(text.strip())
        if found is None:
            raise TopologyError(f"engine {text!r} is no Docker version such as 28.5, 27 or 17.06.0-ce")
        major, minor, patch = (int(part) if part else _LATEST for part in found.groups())
        version = cls(major, minor, patch)
        if not version.since(*FIRST) or major > LAST_MAJOR or 1 < major < 17:
            raise TopologyError(f"engine {text!r}: known are Docker 1.0 to 1.13 and 17.03 to {LAST_MAJOR}.x")
        return version

    def since(self, major: int, minor: int, patch: int = 0) -> bool:
        """True where this version is that one or a later one."""
        return (self.major, self.minor, self.patch) >= (major, minor, patch)

    def __str__(self) -> str:
        parts = [self.major, *(part for part in (self.minor, self.patch) if part != _LATEST)]
        width = 2 if 17 <= self.major <= 20 else 1
        return ".".join(f"{part:0{width}d}" if place == 1 else str(part) for place, part in enumerate(parts))


EngineLike: TypeAlias = "str | Engine"


def as_engine(engine: EngineLike) -> Engine:
    """`engine` itself, or the version of a text.

    Raises:
        TopologyError: as :meth:`Engine.parse`.
    """
    return engine if isinstance(engine, Engine) else Engine.parse(str(engine))
