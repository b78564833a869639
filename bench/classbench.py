"""Rulesets like those of ClassBench (Taylor and Turner, 2005), of any size: access lists, firewalls, IP chains.

The three styles draw from tables of what is typical of each: pairs of prefix lengths, protocols, classes of port
ranges, how many port numbers there are, and how many distinct prefixes a side has. The figures were read off rulesets
that the ClassBench generator made from its seeds acl1, fw1 and ipc1 (shares in percent); `measure` takes the same
figures of any rules, and ``python -m bench.classbench`` prints them side by side.

- Prefixes of a side are cut from a pool of addresses in clusters of neighbours, a few of them popular (Zipf). The pool
  is as large as it takes to have the style's number of distinct prefixes. Those of different lengths hardly nest, but
  in halves and quarters of the net.
- Ports exist for TCP and UDP only. ``WC`` is no port test, ``EM`` one port, ``HI`` 1024:65535, ``AR`` another range.
- More specific rules stand in front of wider ones, with some disorder; no two rules are equal. Verdicts alternate.

Rules are boxes: uint32 arrays ``lo`` and ``hi`` of shape (n, 5), both ends included, in the order src, dst, sport,
dport, proto. They differ from the generator's in that no rule carries flags, and that correlations between fields
beyond prefix lengths are not drawn. At 1k, 10k and 100k rules the numbers of distinct prefixes and ports are within
1.3 times those of the originals, how deep prefixes nest and how many rules a packet matches within 1.7 (at 1k rules,
where a handful of wide rules decides that, within 2.2); of ipc there was no original with 100k rules, and its prefixes
go on there as from 1k to 10k.
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
WELL_KNOWN = (80, 53, 25, 123, 22, 161, 443, 1521, 514, 69, 21, 23, 1433, 110, 143, 88, 162, 139, 389, 3306, 750, 5632)
RANGES = ((109, 110), (20, 21), (1645, 1646), (20, 23), (1812, 1813), (33434, 33600), (5000, 5001))
POOL_STEPS = 14


@dataclass(frozen=True)
class Style:
    """What is typical of a kind of ruleset; shares in percent.

    Attributes:
        pairs: (source, destination) prefix lengths that are frequent.
        rest: of all other rules, the lengths of a side, drawn independently: source, destination.
        protocols: by number, ANY for no test.
        sports, dports: classes of port ranges, among rules for TCP and UDP.
        numbers: how many single source ports, single destination ports and destination port ranges there are.
        distinct: distinct prefixes (source, destination) by number of rules; in between they grow by a power.
        zipf: how much more popular some addresses are.
        spread: neighbours differ in at most so many of their last bits.
    """

    pairs: Mapping[tuple[int, int], float]
    rest: tuple[Mapping[int, float], Mapping[int, float]]
    protocols: Mapping[int, float]
    sports: Mapping[str, float]
    dports: Mapping[str, float]
    numbers: tuple[int, int, int]
    distinct: Mapping[int, tuple[int, int]]
    zipf: float
    spread: int


STYLES: dict[str, Style] = {
    "acl": Style(
        {(32, 32): 28, (31, 32): 14.4, (32, 31): 13.5, (31, 31): 4.7, (32, 30): 3.7, (32, 22): 3.3, (23, 32): 3.2,
         (31, 22): 2.2, (30, 32): 2.1, (31, 23): 2, (32, 24): 1.9, (24, 31): 1.6, (30, 22): 1.2, (30, 23): 1.1,
         (32, 21): 1, (1, 0): 0.13, (0, 0): 0.1, (1, 1): 0.07, (0, 1): 0.06},
        ({7: 1, 21: 1, 22: 15, 23: 26, 24: 16, 25: 4, 29: 6, 30: 4, 31: 12, 32: 10},
         {0: 4, 1: 2, 2: 2, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 1, 14: 1, 15: 7, 16: 6, 17: 5, 20: 1, 21: 5, 22: 1,
          23: 7, 24: 4, 25: 10, 26: 2, 27: 2, 28: 4, 29: 3, 30: 3, 31: 6, 32: 12}),
        {TCP: 88, ANY: 8, ICMP: 3, UDP: 1}, {"WC": 100}, {"EM": 69, "WC": 19, "AR": 12}, (0, 73, 34),
        {1_000: (100, 425), 10_000: (4_200, 760), 100_000: (99_000, 440)}, 0.6, 6),
    "fw": Style(
        {(0, 31): 18.7, (0, 32): 14.2, (1, 32): 11.6, (1, 31): 6.8, (0, 30): 6.6, (31, 0): 4.5, (32, 0): 3.4,
         (32, 1): 3.2, (2, 32): 2.6, (31, 1): 2.1, (32, 32): 1.9, (30, 0): 1.8, (0, 1): 1},
        ({0: 6, 1: 6, 7: 1, 8: 1, 11: 1, 12: 1, 15: 1, 16: 1, 20: 4, 21: 4, 22: 4, 23: 4, 24: 2, 25: 2, 26: 4, 27: 6,
          28: 7, 29: 9, 30: 5, 31: 9, 32: 17},
         {0: 37, 1: 19, 2: 5, 20: 1, 21: 4, 22: 2, 26: 1, 27: 3, 28: 5, 29: 3, 30: 3, 31: 8, 32: 9}),
        {TCP: 58, UDP: 32, GRE: 5, ICMP: 4, ANY: 1}, {"WC": 75, "EM": 16, "HI": 9}, {"EM": 70, "WC": 21, "HI": 9},
        (10, 40, 1), {1_000: (125, 130), 10_000: (3_400, 6_600), 100_000: (26_000, 68_000)}, 0.3, 11),
    "ipc": Style(
        {(32, 32): 7.6, (31, 32): 3.8, (23, 32): 3.1, (24, 32): 2.8, (32, 31): 2.6, (23, 24): 2.5, (25, 32): 2.4,
         (24, 24): 2.1, (0, 32): 1.8, (24, 31): 1.7, (24, 25): 1.7, (0, 31): 1.6, (32, 24): 1.6, (25, 31): 1.5,
         (1, 32): 1.5, (32, 25): 1.4, (24, 23): 1.3, (23, 0): 1.3, (24, 0): 1.3, (22, 25): 1.1, (0, 25): 1.1,
         (23, 16): 1.1, (25, 23): 1, (24, 16): 1, (23, 25): 1, (31, 25): 1, (23, 26): 1, (22, 24): 1},
        ({0: 7, 1: 7, 2: 1, 15: 3, 16: 6, 17: 6, 18: 2, 21: 2, 22: 8, 23: 8, 24: 7, 25: 7, 26: 8, 27: 5, 28: 3, 29: 2,
          30: 3, 31: 8, 32: 7},
         {0: 7, 1: 6, 2: 1, 14: 1, 15: 6, 16: 6, 17: 5, 21: 1, 22: 4, 23: 9, 24: 9, 25: 6, 26: 7, 27: 6, 28: 4, 29: 3,
          30: 4, 31: 8, 32: 8}),
        {UDP: 38, ANY: 32, TCP: 29, ICMP: 0.8, GRE: 0.1, ESP: 0.1}, {"WC": 71, "EM": 26, "AR": 2.6, "HI": 0.4},
        {"WC": 32, "EM": 56, "HI": 8, "AR": 4}, (27, 45, 7),
        {1_000: (255, 465), 10_000: (1_240, 2_750), 100_000: (6_000, 16_000)}, 0.5, 11),
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
    pools = [_pool(rng, kind, n, side) for side in range(2)]
    lo, hi = np.zeros((0, 5), np.uint32), np.zeros((0, 5), np.uint32)
    while len(lo) < n:
        more = _rules(rng, kind, pools, n)
        both = np.concatenate([np.concatenate([lo, more[0]]), np.concatenate([hi, more[1]])], axis=1)
        _, first = np.unique(both, axis=0, return_index=True)
        both = both[np.sort(first)]
        lo, hi = both[:, :5], both[:, 5:]
    lo, hi = lo[:n], hi[:n]
    wide = np.log2((hi - lo).astype(np.float64) + 1).sum(axis=1) + rng.normal(0, 8, n)
    order = np.argsort(wide, kind="stable")
    return np.ascontiguousarray(lo[order]), np.ascontiguousarray(hi[order])


def _pool(rng: np.random.Generator, kind: Style, n: int, side: int) -> Array:
    """Addresses of a side: as many as give n rules the style's number of distinct prefixes.

    They lie in clusters: a site has some neighbours that differ in their last bits.
    """
    sizes = sorted(kind.distinct)
    wanted = np.exp(np.interp(np.log(n), np.log(sizes), np.log([kind.distinct[size][side] for size in sizes])))
    wanted *= n / min(max(n, sizes[0]), sizes[-1])  # beyond the sizes known, in proportion
    sites = rng.integers(1 << 24, 192 << 24, max(4, 4 * n // 12), dtype=np.uint64)
    near = (2 ** rng.integers(1, kind.spread + 1, 4 * n + 4)).astype(np.uint64)
    site = sites[np.arange(len(near)) // 12 % len(sites)] & ~np.uint64(2047)
    every = (site + rng.integers(0, near)).astype(np.uint32)
    lengths = _lengths(rng, kind, n)[:, side]
    spot = rng.random(n)
    low, high = 1, len(every)
    for _ in range(POOL_STEPS):
        size = int((low * high) ** 0.5)
        prefixes = _prefixes(rng, every[:size], kind.zipf, lengths, spot)
        if len(np.unique(prefixes[0].astype(np.uint64) << np.uint64(32) | prefixes[1])) < wanted:
            low = size
        else:
            high = size
    return every[:high]


def _prefixes(rng: np.random.Generator, pool: Array, zipf: float, lengths: Array, spot: Array) -> tuple[Array, Array]:
    """Prefixes of some lengths, cut from addresses of a pool that are the more popular the earlier they stand."""
    shares = np.cumsum(np.arange(1, len(pool) + 1) ** -zipf)
    address = pool[np.searchsorted(shares, spot * shares[-1], "right").clip(0, len(pool) - 1)]
    address = address ^ (lengths.astype(np.uint32) * np.uint32(2654435761) & np.uint32(0x0FFFF800))
    address = np.where(lengths < 20, address & 0x1FFFFFFF | 0xC0000000, address)  # beside the longer ones, not around
    free = ((1 << (32 - lengths).astype(np.uint64)) - 1).astype(np.uint32)
    quarter = rng.integers(0, 4, len(lengths)).astype(np.uint32) << np.uint32(30)
    address = np.where(lengths < 3, quarter, address)
    return address & ~free, address | free


def _lengths(rng: np.random.Generator, kind: Style, count: int) -> Array:
    """Prefix lengths of the sides: int, shape (count, 2)."""
    names, which = _draw(rng, dict(kind.pairs) | {(ANY, ANY): 100 - sum(kind.pairs.values())}, count)
    lengths = np.array(names)[which]
    for side, shares in enumerate(kind.rest):
        names, which = _draw(rng, shares, count)
        lengths[:, side] = np.where(lengths[:, side] == ANY, np.array(names)[which], lengths[:, side])
    return lengths


def _numbers(count: int, ranges: int) -> tuple[Array, Array]:
    """Port numbers and port ranges of a style: known ones, then others of all sizes."""
    rng = np.random.default_rng(count)
    ports = np.concatenate([WELL_KNOWN, (2 ** rng.uniform(6, 15, count)).astype(int)])
    first = (2 ** rng.uniform(10, 15, ranges)).astype(int)
    wide = np.stack([first, first + rng.integers(1, 100, ranges)], axis=1)
    return ports[:max(1, count)], np.concatenate([RANGES, wide])[:max(1, ranges)]


def _draw(rng: np.random.Generator, shares: Mapping[Any, float], count: int) -> tuple[list[Any], Array]:
    """The keys, and which of them each of some rules has: as many as their shares say, in random order."""
    bounds = np.cumsum(np.array(list(shares.values()), float))
    spots = (np.arange(count) + rng.random()) / count * bounds[-1]
    return list(shares), rng.permutation(np.searchsorted(bounds, spots, "right").clip(0, len(bounds) - 1))


def _popular(rng: np.random.Generator, among: Array, count: int) -> Array:
    """Drawn from a list whose k-th member has a share in proportion to 1/k."""
    shares = 1 / np.arange(1, len(among) + 1)
    return among[rng.choice(len(among), count, p=shares / shares.sum())]


def _rules(rng: np.random.Generator, kind: Style, pools: list[Array], count: int) -> tuple[Array, Array]:
    lo, hi = np.zeros((count, 5), np.uint32), np.zeros((count, 5), np.uint32)
    lengths = _lengths(rng, kind, count)
    for side, pool in enumerate(pools):
        lo[:, side], hi[:, side] = _prefixes(rng, pool, kind.zipf, lengths[:, side], rng.random(count))
    names, which = _draw(rng, kind.protocols, count)
    proto = np.array(names)[which]
    lo[:, 4], hi[:, 4] = np.where(proto == ANY, 0, proto), np.where(proto == ANY, 255, proto)
    ports = (proto == TCP) | (proto == UDP)
    for column, shares, numbers in ((2, kind.sports, kind.numbers[0]), (3, kind.dports, kind.numbers[1])):
        names, which = _draw(rng, shares, count)
        first, last = np.zeros(count, np.uint32), np.full(count, 65535, np.uint32)
        single, ranges = _numbers(numbers, kind.numbers[2] if column == 3 else 5)
        for i, name in enumerate(names):
            here = which == i
            if name == "EM":
                first[here] = last[here] = _popular(rng, single, int(here.sum()))
            elif name == "AR":
                first[here], last[here] = _popular(rng, ranges, int(here.sum())).T
            elif name == "HI":
                first[here] = 1024
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
        "distinct prefixes": tuple(len(_distinct(lo[:, i], hi[:, i])) for i in (0, 1)),
        "distinct ports": tuple(len(_distinct(lo[:, i], hi[:, i])) for i in (2, 3)),
        "prefixes around one": tuple(round(_depth(_distinct(lo[:, i], hi[:, i])), 2) for i in (0, 1)),
        "rules around a packet": round(_overlap(lo, hi), 1),
    }


def _distinct(lo: Array, hi: Array) -> list[tuple[int, int]]:
    """Distinct intervals, the wider in front of those that begin alike."""
    return [(a, -b) for a, b in sorted({(a, -b) for a, b in zip(lo.tolist(), hi.tolist(), strict=True)})]


def _depth(prefixes: list[tuple[int, int]]) -> float:
    """How many others a prefix lies in, on average."""
    around: list[int] = []
    total = 0
    for low, high in prefixes:
        while around and around[-1] < low:
            around.pop()
        total += len(around)
        around.append(high)
    return total / max(1, len(prefixes))


def _overlap(lo: Array, hi: Array, packets: int = 300) -> float:
    """How many rules a packet matches that is drawn from a rule, on average."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, len(lo), packets)
    low, high = lo[which].astype(np.int64), hi[which].astype(np.int64)
    points = low + (rng.random(low.shape) * (high - low + 1)).astype(np.int64)
    return float(np.mean([((lo <= p) & (hi >= p)).all(axis=1).sum() for p in points]))


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
