"""What do Docker 20.10, 27, 28 and 29 cost on the same networks?

    python -m bench.capacity.engines [--backend nft|legacy] [--out FOLDER] [--calibration FILE]
"""

from __future__ import annotations

import fastpath as fp
from bench.capacity.common import ENGINES, arguments, chart, says, table
from fastpath.capacity.growth.shapes import networks


def main() -> None:
    given = arguments(__doc__)
    found = fp.capacity.sweep(networks, range(10, 201, 10), 2000, ENGINES, name="networks", backend=given.backend,
                              model=given.model)
    rows = [{"engine": r.engine, "networks": r.size, "rules": r.rules, "walked": r.rules_examined, "mean ns": r.mean_ns,
             "p99 ns": r.p99_ns, "restore bytes": r.restore_bytes, "kernel bytes": r.kernel_bytes} for r in found.rows]
    table(rows)
    chart(given.out / f"engines-{given.backend}.png", rows, "networks", "mean ns", "engine",
          f"a packet of the usual mix, iptables-{given.backend}")
    last = {r.engine: r for r in found.rows if r.size == 200}
    base = last["20.10"]
    words = [f"{e} {r.mean_ns / 1e3:.1f} us ({r.mean_ns / base.mean_ns:.2f} times 20.10's), {r.rules} rules"
             for e, r in last.items()]
    says(f"""At 200 networks with iptables-{given.backend}, a packet of the usual mix costs: {'; '.join(words)}. Per
    network that is {', '.join(f'{k.engine} {k.after:.0f} ns' for k in found.knees)}. The sweep of
    {len(found.rows)} hosts took
    {found.seconds:.0f} s. Figures: {found.calibration}.""")


if __name__ == "__main__":
    main()
