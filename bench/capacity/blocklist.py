"""What do ten thousand DOCKER-USER blocklist rules cost?

    python -m bench.capacity.blocklist [--backend nft|legacy] [--out FOLDER] [--calibration FILE]
"""

from __future__ import annotations

import fastpath as fp
from bench.capacity.common import arguments, chart, forwarded, says, table
from fastpath.capacity.cpu.steps import table_bytes
from fastpath.capacity.growth.shapes import rules

SIZES = (0, 100, 300, 1000, 2000, 3000, 5000, 7000, 10_000)
ENGINE = "28"


def main() -> None:
    given = arguments(__doc__)
    rows = []
    packets = forwarded(rules(0).host(ENGINE), 2000)
    for n in SIZES:
        host = rules(n).host(ENGINE)
        for backend in ("legacy", "nft"):
            cost = fp.capacity.cost(host, packets, backend=backend, model=given.model)
            rows.append({"back end": backend, "blocklist rules": n, "mean ns": cost.mean_ns,
                         "packets/s on a core": cost.packets_per_second, "restore bytes": len(str(host.ruleset)),
                         "kernel bytes": table_bytes(host)})
    table(rows)
    chart(given.out / "blocklist.png", rows, "blocklist rules", "mean ns", "back end",
          "a forwarded packet of the usual mix")
    first, last = rows[:2], rows[-2:]
    words = [f"{b['back end']} {b['mean ns'] / 1e3:.1f} us in place of {a['mean ns'] / 1e3:.1f} us "
             f"({b['packets/s on a core'] / 1e3:.0f}k packets/s on a core, not {a['packets/s on a core'] / 1e3:.0f}k)"
             for a, b in zip(first, last, strict=True)]
    says(f"""Ten thousand rules of the form -s ADDRESS -j DROP in DOCKER-USER make a forwarded packet of the usual mix
    cost {'; '.join(words)}; {last[0]['kernel bytes'] / 1e6:.1f} MB of rules in the kernel,
    {last[0]['restore bytes'] / 1e6:.1f} MB to restore. Established packets pay like first ones, because Docker
    asks DOCKER-USER before it accepts
    established connections. Figures: {given.model}.""")


if __name__ == "__main__":
    main()
