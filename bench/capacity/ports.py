"""Ports published one by one, as Docker writes them, against one rule for the whole range.

Docker has no rules of ranges: `-p 10000-20000:10000-20000` becomes a rule for every port in nat and in filter. The same
reachability written by hand is one DNAT and one ACCEPT of the range; that both decide alike is checked on packets at
the edges of the rules.

    python -m bench.capacity.ports [--backend nft|legacy] [--out FOLDER] [--calibration FILE]
"""

from __future__ import annotations

import numpy as np

import fastpath as fp
from bench.capacity.common import arguments, chart, says, table
from fastpath.capacity.cpu.steps import table_bytes
from fastpath.capacity.growth.shapes import ports
from fastpath.host.model import Host
from fastpath.packets import PacketBatch
from fastpath.ruleset.parse import parse_ruleset

SIZES = (10, 30, 100, 300, 1000, 3000, 10_000)
ENGINE = "28"


def as_range(host: Host, n: int) -> Host:
    """The same host with one rule where Docker has `n` of the same kind, made of the first of them."""
    lines, seen = [], set()
    last = 10_000 + n - 1
    for line in str(host.ruleset).splitlines():
        kind = line
        for word in line.split():
            number = word.rsplit(":", 1)[-1]
            if number.isdigit() and 10_000 <= int(number) <= last:
                kind = kind.replace(number, "PORT")
        if "PORT" not in kind:
            lines.append(line)
        elif kind not in seen:
            seen.add(kind)
            lines.append(kind.replace("--dport PORT", f"--dport 10000:{last}").replace(":PORT", ""))
    return host.with_ruleset(parse_ruleset("\n".join(lines) + "\n"))


def to_ports(n: int, count: int = 2000) -> PacketBatch:
    """First packets from outside, half of them to published ports, half to others."""
    r = np.random.default_rng(1)
    dport = np.where(np.arange(count) % 2 == 0, 10_000 + r.integers(0, n, count), r.integers(1, 10_000, count))
    return PacketBatch.from_columns({
        "iif": "eth0", "src": r.integers(0xC6336401, 0xC63364FE, count).astype(np.uint32), "dst": "10.0.2.15",
        "proto": "tcp", "sport": r.integers(32_768, 60_000, count).astype(np.uint16), "dport": dport.astype(np.uint16)})


def main() -> None:
    given = arguments(__doc__)
    rows = []
    for n in SIZES:
        single = ports(n).host(ENGINE)
        ranged = as_range(single, n)
        packets = to_ports(n)
        one, other = (fp.compile(host).evaluate(packets) for host in (single, ranged))
        same = all(np.array_equal(one.column(c), other.column(c)) for c in ("verdict", "hook", "dst", "dport", "mark"))
        assert same, "the range is not what the single rules do"
        for name, host in (("single", single), ("range", ranged)):
            cost = fp.capacity.cost(host, packets, backend=given.backend, model=given.model)
            rows.append({"rules are": name, "ports": n, "rules": sum(len(c.rules) for t in host.ruleset.tables
                                                                     for c in t.chains),
                         "mean ns": cost.mean_ns, "p99 ns": cost.percentiles[99.0],
                         "restore bytes": len(str(host.ruleset)), "kernel bytes": table_bytes(host)})
    table(rows)
    chart(given.out / f"ports-{given.backend}.png", rows, "ports", "mean ns", "rules are",
          f"a first packet from outside, iptables-{given.backend}", log=True)
    many, few = rows[-2], rows[-1]
    says(f"""{SIZES[-1]} ports published one by one are {many['rules']} rules, {many['restore bytes'] / 1e6:.1f} MB to
    restore and {many['kernel bytes'] / 1e6:.1f} MB in the kernel, and cost a first packet {many['mean ns'] /
    1e3:.1f} us with
    iptables-{given.backend}; a range is {few['rules']} rules and {few['mean ns'] / 1e3:.2f} us,
    {many['mean ns'] / few['mean ns']:.0f} times less, with the same fate for each of {len(packets)} packets.
    Figures: {given.model}.""")


if __name__ == "__main__":
    main()
