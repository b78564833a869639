"""The ``uniform`` profile: evenly random addresses and ports, so that most rules never match."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.host.model import Host
from fastpath.packets.schema import LOCAL
from fastpath.packets.synth.draw import Bits, pool
from fastpath.packets.synth.site import interface_names, survey
from fastpath.packets.text import PORT_PROTOCOLS

Array = npt.NDArray[Any]


class Uniform:
    """Makes blocks of the ``uniform`` profile for one host."""

    stream = 0

    def __init__(self, host: Host, seed: int) -> None:
        names = [name for name in dict.fromkeys([*interface_names(host), survey(host).uplink])
                 if name not in ("lo", LOCAL)]
        self.interfaces: tuple[str, ...] = (*names, LOCAL)
        codes = range(len(self.interfaces))
        self._pools = {
            "iif": pool(np.int16, (1, codes)),
            "proto": pool(np.uint8, (45, (6,)), (35, (17,)), (15, (1,)), (5, (33, 47, 132, 136))),
            "tcp_flags": pool(np.uint8, (1, (2,)), (1, range(64))),
            "icmp_type": pool(np.uint8, (1, (8,)), (1, range(19))),
            "length": pool(np.uint16, (1, range(40, 1501))),
        }
        if not host.complete:
            self._pools["oif"] = pool(np.int16, (1, codes))
        self.columns: tuple[str, ...] = ("src", "dst", "sport", "dport", *self._pools)

    def fill(self, bits: Bits, out: dict[str, Array]) -> None:
        """Fills one block: `out` has an array of BLOCK values for each of ``columns``."""
        for name in ("src", "dst", "sport", "dport"):
            out[name][:] = bits.take(out[name].dtype)
        for name, values in self._pools.items():
            np.take(values, bits.below(len(values)), out=out[name], mode="clip")
        clear_ports(out)


_HAS_PORTS = np.array([p in PORT_PROTOCOLS for p in range(256)], np.uint16)
_HAS_ID = np.array([p in PORT_PROTOCOLS or p == 1 for p in range(256)], np.uint16)


def clear_ports(out: dict[str, Array]) -> None:
    """Zeroes the ports of protocols that have none; ICMP keeps its id in ``sport``."""
    out["sport"] *= _HAS_ID[out["proto"]]
    out["dport"] *= _HAS_PORTS[out["proto"]]
