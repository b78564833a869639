"""Rulesets like those of ClassBench (Taylor and Turner, 2005), of any size: access lists, firewalls, IP chains.

The three styles draw from tables of what is typical of each: pairs of prefix lengths, protocols, classes of port
ranges, and how many distinct addresses a side has. The figures were read off rulesets that the ClassBench generator
made from its seeds acl1, fw1 and ipc1 (shares in percent); `measure` takes the same figures of any rules, and
``python -m bench.classbench`` prints them side by side.

- Prefixes of a side are cut from a pool of addresses in clusters of neighbours, a few of them popular (Zipf): so they
  nest as in real rules, and the number of distinct ones follows the pool.
- Ports exist for TCP and UDP only. ``WC`` is no port test, ``EM`` one port, ``HI`` 1024:65535, ``LO`` 0:1023, ``AR``
  another range.
- More specific rules stand in front of wider ones, with some disorder; no two rules are equal. Verdicts alternate.

Rules are boxes: uint32 arrays ``lo`` and ``hi`` of shape (n, 5), both ends included, in the order src, dst, sport,
dport, proto. They differ from the generator's in that no rule carries flags, and that correlations between fields
beyond prefix lengths are not drawn.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TCP, UDP, ICMP, GRE, ESP = 6, 17, 1, 47, 50
ANY = -1
WELL_KNOWN = (80, 443, 25, 53, 21, 22, 23, 110, 143, 123, 161, 389, 445, 514, 1433, 1521, 1704, 1812, 3306, 3389, 5631,
              7648, 8080)
RANGES = ((1812, 1813), (109, 110), (137, 139), (20, 21), (6000, 6063), (2301, 2310), (1024, 5000), (161, 162))


@dataclass(frozen=True)
class Style:
    """What is typical of a kind of ruleset; shares in percent.

    Attributes:
        lengths: (source, destination) prefix lengths.
        protocols: by number, ANY for no test.
        sports, dports: classes of port ranges, among rules for TCP and UDP.
        pools: distinct addresses of a side for n rules: factor and exponent for the source, then for the destination.
        zipf: how much more popular some addresses are.
    """

    lengths: Mapping[tuple[int, int], float]
    protocols: Mapping[int, float]
    sports: Mapping[str, float]
    dports: Mapping[str, float]
    pools: tuple[float, float, float, float]
    zipf: float


STYLES: dict[str, Style] = {
    "acl": Style(
        {(32, 32): 28, (31, 32): 14, (32, 31): 13, (31, 31): 5, (32, 30): 4, (23, 32): 3.6, (32, 22): 3.4,
         (30, 32): 2.5, (31, 22): 2, (31, 23): 1.8, (24, 31): 1.7, (32, 24): 1.7, (32, 21): 1.2, (30, 23): 1.1,
         (30, 22): 1, (24, 32): 0.9,
         (28, 28): 4, (27, 24): 4, (0, 32): 2, (16, 24): 2, (8, 22): 1},
        {TCP: 88, ANY: 8, ICMP: 3, UDP: 1}, {"WC": 100}, {"EM": 67, "WC": 22, "AR": 11}, (0.12, 1.1, 40, 0.32), 0.6),
    "fw": Style(
        {(0, 31): 18, (0, 32): 14.5, (1, 32): 11.5, (1, 31): 6.8, (0, 30): 6.5, (31, 0): 4.5, (32, 0): 3.5,
         (32, 1): 3.2, (2, 32): 2.7, (31, 1): 2, (32, 32): 2.2, (30, 0): 1.9, (1, 0): 1, (0, 0): 0.8, (0, 1): 1.1,
         (31, 32): 0.9, (27, 0): 0.9, (32, 2): 0.8, (28, 0): 0.6, (28, 28): 5, (24, 30): 5, (30, 24): 4, (16, 29): 2.5},
        {TCP: 58, UDP: 32, GRE: 5, ICMP: 4, ANY: 1}, {"WC": 75, "EM": 16, "HI": 9}, {"EM": 70, "WC": 21, "HI": 9},
        (0.5, 0.95, 0.9, 0.98), 0.3),
    "ipc": Style(
        {(32, 32): 8.5, (31, 32): 4, (23, 32): 3, (24, 32): 2.8, (32, 31): 2.6, (23, 24): 2.3, (25, 32): 2.2,
         (24, 24): 2.1, (24, 31): 1.9, (0, 32): 1.7, (24, 25): 1.7, (0, 31): 1.7, (32, 24): 1.7, (25, 31): 1.5,
         (1, 32): 1.5, (32, 25): 1.6, (24, 0): 1.7, (22, 25): 1.5, (0, 0): 0.3, (28, 28): 12, (27, 24): 10,
         (30, 30): 10, (24, 16): 5, (16, 24): 5, (20, 28): 5, (28, 20): 5, (1, 0): 0.3, (22, 22): 3},
        {UDP: 38, ANY: 32, TCP: 29, ICMP: 0.8, GRE: 0.1, ESP: 0.1}, {"WC": 70, "EM": 27, "AR": 2.6, "HI": 0.4},
        {"WC": 34, "EM": 54, "HI": 8, "AR": 4}, (1.4, 0.75, 2, 0.8), 0.5),
}
"""The styles by name."""


def generate(style: str, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Rules of a style.

    Args:
        style: ``acl``, ``fw`` or ``ipc``.
        n: how many.
        seed: the same seed, style and n give the same rules.

    Returns:
        ``lo`` and ``hi``, uint32 of shape (n, 5).
    """
    kind = STYLES[style]
    rng = np.random.default_rng([seed, n, sum(map(ord, style))])
    sides = [_pool(rng, max(20, int(kind.pools[2 * i] * n ** kind.pools[2 * i + 1]))) for i in range(2)]
    lo, hi = np.zeros((0, 5), np.uint32), np.zeros((0, 5), np.uint32)
    while len(lo) < n:
        more = _rules(rng, kind, sides, n + n // 4 + 16)
        both = np.concatenate([np.concatenate([lo, more[0]]), np.concatenate([hi, more[1]])], axis=1)
        _, first = np.unique(both, axis=0, return_index=True)
        both = both[np.sort(first)]
        lo, hi = both[:, :5], both[:, 5:]
    lo, hi = lo[:n], hi[:n]
    wide = np.log2((hi - lo).astype(np.float64) + 1).sum(axis=1) + rng.normal(0, 8, n)
    order = np.argsort(wide, kind="stable")
    return np.ascontiguousarray(lo[order]), np.ascontiguousarray(hi[order])


def _pool(rng: np.random.Generator, count: int) -> Array:
    """Addresses in clusters: a site has some neighbours that differ in their last bits."""
    sites = rng.integers(1 << 24, 224 << 24, max(4, count // 12), dtype=np.uint64)
    near = (2 ** rng.integers(1, 12, count)).astype(np.uint64)
    return ((sites[rng.integers(0, len(sites), count)] & ~np.uint64(2047)) + rng.integers(0, near)).astype(np.uint32)


def _draw(rng: np.random.Generator, shares: Mapping[Any, float], count: int) -> tuple[list[Any], Array]:
    weights = np.array(list(shares.values()), float)
    return list(shares), rng.choice(len(weights), count, p=weights / weights.sum())


def _rules(rng: np.random.Generator, kind: Style, sides: list[Array], count: int) -> tuple[Array, Array]:
    lo, hi = np.zeros((count, 5), np.uint32), np.zeros((count, 5), np.uint32)
    names, which = _draw(rng, kind.lengths, count)
    lengths = np.array(names)[which]
    for side, pool in enumerate(sides):
        ranks = np.arange(1, len(pool) + 1) ** -kind.zipf
        address = pool[rng.choice(len(pool), count, p=ranks / ranks.sum())]
        free = ((1 << (32 - lengths[:, side]).astype(np.uint64)) - 1).astype(np.uint32)
        short = lengths[:, side] < 8  # a half or a quarter of the net: any of them
        address = np.where(short, rng.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32), address)
        lo[:, side], hi[:, side] = address & ~free, address | free
    names, which = _draw(rng, kind.protocols, count)
    proto = np.array(names)[which]
    lo[:, 4], hi[:, 4] = np.where(proto == ANY, 0, proto), np.where(proto == ANY, 255, proto)
    ports = (proto == TCP) | (proto == UDP)
    for column, shares in ((2, kind.sports), (3, kind.dports)):
        names, which = _draw(rng, shares, count)
        first, last = np.zeros(count, np.uint32), np.full(count, 65535, np.uint32)
        for i, name in enumerate(names):
            here = which == i
            if name == "EM":
                some = np.where(rng.random(count) < 0.6, np.array(WELL_KNOWN)[rng.integers(0, len(WELL_KNOWN), count)],
                                rng.integers(1, 8000, count))
                first[here] = last[here] = some[here]
            elif name == "AR":
                some = np.array(RANGES)[rng.integers(0, len(RANGES), count)]
                first[here], last[here] = some[here, 0], some[here, 1]
            elif name == "HI":
                first[here] = 1024
            elif name == "LO":
                last[here] = 1023
        lo[:, column] = np.where(ports, first, 0)
        hi[:, column] = np.where(ports, last, 65535)
    return lo, hi


def save_text(lo: Array, hi: Array) -> str:
    """The rules as an iptables-save file: chain FORWARD of the filter table, policy DROP."""
    def dotted(a: int) -> str:
        return f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255}"

    lines = ["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT ACCEPT [0:0]"]
    for number, (low, high) in enumerate(zip(lo.tolist(), hi.tolist(), strict=True)):
        words = ["-A FORWARD"]
        for option, side in (("-s", 0), ("-d", 1)):
            length = 32 - (high[side] - low[side] + 1).bit_length() + 1
            if length:
                words.append(f"{option} {dotted(low[side])}/{length}")
        if low[4] == high[4]:
            name = {TCP: "tcp", UDP: "udp", ICMP: "icmp", GRE: "gre", ESP: "esp"}.get(low[4], str(low[4]))
            words.append(f"-p {name}")
            ports = [f"--{option} {low[f]}" + (f":{high[f]}" if high[f] > low[f] else "")
                     for option, f in (("sport", 2), ("dport", 3)) if (low[f], high[f]) != (0, 65535)]
            if ports:
                words += [f"-m {name}", *ports]
        words.append("-j ACCEPT" if number % 2 == 0 else "-j DROP")
        lines.append(" ".join(words))
    return "\n".join([*lines, "COMMIT", ""])


def measure(lo: Array, hi: Array) -> dict[str, Any]:
    """The figures that the styles are made of, of any rules."""
    n = len(lo)
    lengths = 32 - np.log2((hi[:, :2] - lo[:, :2]).astype(np.float64) + 1).round().astype(int)

    def shares(values: Iterable[Any], most: int = 6) -> dict[Any, float]:
        return {key: round(100 * count / n, 1) for key, count in Counter(values).most_common(most)}

    def port_class(low: int, high: int) -> str:
        known = {(0, 65535): "WC", (1024, 65535): "HI", (0, 1023): "LO"}
        return known.get((low, high), "EM" if low == high else "AR")

    return {
        "rules": n,
        "prefix lengths": shares(map(tuple, lengths.tolist())),
        "protocols": shares(int(a) if a == b else ANY for a, b in zip(lo[:, 4], hi[:, 4], strict=True)),
        "source ports": shares(port_class(*p) for p in zip(lo[:, 2].tolist(), hi[:, 2].tolist(), strict=True)),
        "destination ports": shares(port_class(*p) for p in zip(lo[:, 3].tolist(), hi[:, 3].tolist(), strict=True)),
        "distinct prefixes": tuple(len(np.unique(np.stack([lo[:, i], hi[:, i]]), axis=1)[0]) for i in range(2)),
        "nested in another": tuple(round(100 * _nested(lo[:, i], hi[:, i]), 1) for i in range(2)),
    }


def _nested(lo: Array, hi: Array) -> float:
    """Share of the distinct prefixes that lie inside another one that is not the whole net."""
    prefixes = sorted({(int(a), -int(b)) for a, b in zip(lo, hi, strict=True)})
    inside, open_until = 0, -1
    for low, high in prefixes:
        if (low, -high) == (0, 0xFFFFFFFF):
            continue
        inside += -high <= open_until
        open_until = max(open_until, -high)
    return inside / max(1, len(prefixes))


def main() -> None:
    """Prints the figures of generated rules, and of the originals where they are."""
    from bench.rulesets import classifier_rules, originals

    for name in sys.argv[1:] or ("acl_1k", "fw_1k", "ipc_1k", "acl_10k", "fw_10k", "ipc_10k"):
        style, size = name.split("_")
        n = int(size.removesuffix("k")) * 1000
        print(name)
        for key, value in measure(*generate(style, n)).items():
            print(f"  {key:<20} {value}")
        found = originals().get(f"{style}1_{size}")
        if found is not None:
            print(f"  original: {found.stem}")
            rules = classifier_rules(f"{style}1_{size}")
            for key, value in measure(rules.lo[:-1, :5], rules.hi[:-1, :5]).items():
                print(f"  {key:<20} {value}")


if __name__ == "__main__":
    main()
