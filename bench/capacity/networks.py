"""How many Docker networks until the FORWARD hook's filter rules cost a forwarded packet 5 microseconds?

    python -m bench.capacity.networks [--backend nft|legacy] [--out FOLDER] [--calibration FILE]
"""

from __future__ import annotations

from bench.capacity.common import ENGINES, arguments, chart, crossing, filter_ns, forwarded, says, table
from fastpath.capacity.growth.shapes import networks

SIZES = (5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 450, 600)
BUDGET = 5000.0


def main() -> None:
    given = arguments(__doc__)
    rows = []
    found = {}
    for engine in ENGINES:
        values = []
        for n in SIZES:
            host = networks(n).host(engine)
            ns, whole = filter_ns(host, forwarded(host, 1500), given)
            values.append(ns)
            rows.append({"engine": engine, "networks": n, "FORWARD ns": ns, "packet ns": whole})
        found[engine] = crossing(SIZES, values, BUDGET)
    table(rows)
    chart(given.out / f"networks-{given.backend}.png", rows, "networks", "FORWARD ns", "engine",
          f"filter rules in FORWARD, iptables-{given.backend}", rule=BUDGET)
    words = [f"{engine}: {f'{n:.0f}' if n is not None else f'more than {SIZES[-1]}'}" for engine, n in found.items()]
    says(f"""With iptables-{given.backend} the filter rules of FORWARD cost a forwarded packet of the usual mix more
    than 5 us from this many networks on (three containers each, two with a published port): {'; '.join(words)}.
    Figures: {given.model}.""")


if __name__ == "__main__":
    main()
