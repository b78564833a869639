"""What thousands of kube-proxy services cost: the first packet of a connection, and the size of a restore.

    python -m bench.capacity.services [--out FOLDER] [--calibration FILE]
"""

from __future__ import annotations

import numpy as np

import fastpath as fp
from bench.capacity.common import arguments, chart, says, table
from fastpath.capacity.growth.shapes import kube_services
from fastpath.packets import PacketBatch

SIZES = (10, 100, 300, 1000, 2000, 3500, 5000)


def to_services(n: int, state: str = "new") -> PacketBatch:
    """Packets of a pod to services of all places in the list."""
    chosen = np.random.default_rng(1).integers(0, n, 500)
    return PacketBatch.from_columns({
        "iif": "cni0", "src": "10.244.200.7", "dst": ((10 << 24 | 96 << 16) + chosen).astype(np.uint32), "proto": "tcp",
        "sport": 40_000, "dport": 80, "state": state, "tcp_flags": "SYN" if state == "new" else "ACK"})


def main() -> None:
    given = arguments(__doc__)
    rows = []
    for n in SIZES:
        host = kube_services(n)
        for backend in ("legacy", "nft"):
            first = fp.capacity.cost(host, to_services(n), backend=backend, model=given.model)
            later = fp.capacity.cost(host, to_services(n, "established"), backend=backend, model=given.model)
            rows.append({"back end": backend, "services": n, "lines": str(host.ruleset).count("\n"),
                         "restore bytes": len(str(host.ruleset)), "first packet ns": first.mean_ns,
                         "p99 ns": first.percentiles[99.0], "later packet ns": later.mean_ns})
    table(rows)
    chart(given.out / "services.png", rows, "services", "first packet ns", "back end",
          "the first packet of a connection to a service")
    legacy, nft = rows[-2:]
    says(f"""{SIZES[-1]} services of two pods are {nft['lines']} lines, {nft['restore bytes'] / 1e6:.1f} MB to
    restore. The
    first packet of a connection to one of them costs {legacy['first packet ns'] / 1e3:.1f} us with legacy iptables and
    {nft['first packet ns'] / 1e3:.1f} us with nft, later packets {nft['later packet ns'] / 1e3:.1f} us however many
    services there are. Figures: {given.model}.""")


if __name__ == "__main__":
    main()
