"""Made-up packets for a host: ``packets(host, n, seed, profile)``."""

from __future__ import annotations

from fastpath.packets.synth.generate import PROFILES, packets

__all__ = ["PROFILES", "packets"]
