"""Made-up packets for a host: ``packets(host, n, seed, profile)``, and ``stream`` for more than memory holds."""

from __future__ import annotations

from fastpath.packets.synth.generate import PROFILES, packets, stream

__all__ = ["PROFILES", "packets", "stream"]
