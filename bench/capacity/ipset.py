"""One rule with an ipset against a rule for each address.

    python -m bench.capacity.ipset [--backend nft|legacy] [--out FOLDER] [--calibration FILE]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import fastpath as fp
from bench.capacity.common import arguments, chart, crossing, forwarded, says, table
from fastpath.capacity.growth.shapes import networks
from fastpath.host.ipset import parse_ipsets
from fastpath.host.model import Host

SIZES = (1, 3, 10, 30, 100, 300, 1000)


def addresses(n: int) -> list[str]:
    """Addresses to block."""
    return [f"203.0.{i >> 8}.{i & 255}" for i in range(n)]


def by_rules(host: Host, n: int) -> Host:
    """A rule in DOCKER-USER for each address."""
    return host.edit(*(f"iptables -I DOCKER-USER -s {a} -j DROP" for a in addresses(n)))


def by_set(host: Host, n: int) -> Host:
    """One rule, and a set of the addresses."""
    text = "create blocked hash:ip\n" + "".join(f"add blocked {a}\n" for a in addresses(n))
    return replace(host, ipsets=(*host.ipsets, *parse_ipsets(text))).edit(
        "iptables -I DOCKER-USER -m set --match-set blocked src -j DROP")


def main() -> None:
    given = arguments(__doc__)
    host = networks(5).host("28")
    packets = forwarded(host, 2000)
    plain = fp.capacity.cost(host, packets, backend=given.backend, model=given.model).mean_ns
    rows = []
    for n in SIZES:
        made = {"rules": by_rules(host, n), "one ipset": by_set(host, n)}
        fates = [fp.compile(each).evaluate(packets) for each in made.values()]
        assert np.array_equal(fates[0].verdict, fates[1].verdict)
        for name, each in made.items():
            cost = fp.capacity.cost(each, packets, backend=given.backend, model=given.model)
            rows.append({"blocked by": name, "addresses": n, "mean ns": cost.mean_ns, "more ns": cost.mean_ns - plain})
    table(rows)
    chart(given.out / f"ipset-{given.backend}.png", rows, "addresses", "more ns", "blocked by",
          f"what blocking costs a packet that is not blocked, iptables-{given.backend}", log=True)
    rules = [r["more ns"] for r in rows if r["blocked by"] == "rules"]
    of_set = [r["more ns"] for r in rows if r["blocked by"] != "rules"][-1]
    even = crossing(SIZES, rules, of_set)
    says(f"""With iptables-{given.backend} a thousand rules cost every packet that passes them {rules[-1] / 1e3:.2f} us,
    one ipset of the same thousand addresses {of_set:.0f} ns: {rules[-1] / of_set:.0f} times less. A set costs what
    {even:.0f} rules do. The model looks up sets that lie in the cache; sets of millions of entries cost a cache miss
    more. Figures: {given.model}.""")


if __name__ == "__main__":
    main()
