"""Packets for first-match rules, as headers in the order of FIELDS: uint32 of shape (n, 9).

- ``uniform``: a rule drawn evenly, and a header drawn evenly from its box.
- ``edges``: a rule, and in every field the first or last value of its box, or the one beside it.
- ``zipf``: 65,536 flows drawn as in ``uniform``; the k-th most popular one has a share in proportion to 1/k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bench.flatten import FIELDS, TOPS, FirstMatch
from fastpath.packets import PacketBatch

Array = npt.NDArray[Any]

KINDS = ("uniform", "edges", "zipf")
FLOWS = 1 << 16
STATES = 6  # the last of State: headers hold no AUTO, which is no state that a rule sees
NAMELESS = "other0"
"""An interface that no rule names."""


def headers(rules: FirstMatch, n: int, kind: str, seed: int = 0) -> Array:
    """Headers for rules; deterministic.

    Args:
        rules: boxes.
        n: how many.
        kind: one of KINDS.
        seed: the same arguments give the same headers.
    """
    rng = np.random.default_rng([seed, n, KINDS.index(kind)])
    if kind == "zipf":
        return np.ascontiguousarray(_inside(rules, FLOWS, rng)[zipf(FLOWS, n, rng)])
    if kind == "uniform":
        return _inside(rules, n, rng)
    which = rng.integers(0, len(rules), n)
    low, high = rules.lo[which].astype(np.int64), rules.hi[which].astype(np.int64)
    at = np.where(rng.random((n, len(FIELDS))) < 0.5, low, high) + rng.choice([0, 0, 0, -1, 1], (n, len(FIELDS)))
    return _valid(np.clip(at, 0, np.array(TOPS)), rules, rng)


def _inside(rules: FirstMatch, n: int, rng: np.random.Generator) -> Array:
    which = rng.integers(0, len(rules), n)
    low, high = rules.lo[which].astype(np.uint64), rules.hi[which].astype(np.uint64)
    return _valid(low + (rng.random((n, len(FIELDS))) * (high - low + np.uint64(1))).astype(np.uint64), rules, rng)


def zipf(flows: int, n: int, rng: np.random.Generator) -> Array:
    """n numbers of flows, the k-th of which has a share in proportion to 1/k."""
    shares = np.cumsum(1 / np.arange(1, flows + 1))
    return np.searchsorted(shares / shares[-1], rng.random(n)).clip(0, flows - 1)


def _valid(at: Array, rules: FirstMatch, rng: np.random.Generator) -> Array:
    """Interfaces that exist, states that a packet may have, and local destinations where the box wants them."""
    out = at.astype(np.uint32)
    names = len(rules.interfaces)
    for i in (FIELDS.index("iif"), FIELDS.index("oif")):
        bad = out[:, i] > names
        out[bad, i] = rng.integers(0, names + 1, int(bad.sum()))
    i = FIELDS.index("state")
    bad = (out[:, i] < 1) | (out[:, i] > STATES)
    out[bad, i] = rng.integers(1, STATES + 1, int(bad.sum()))
    dst, local = FIELDS.index("dst"), FIELDS.index("local")
    if len(rules.local) and rules.lo[:, local].any():
        low, high = np.array(rules.local, np.int64).reshape(-1, 2).T
        wanted = np.flatnonzero((out[:, local] == 1) & ~_is_local(out[:, dst], rules))
        some = rng.integers(0, len(low), len(wanted))
        out[wanted, dst] = low[some] + (rng.random(len(wanted)) * (high - low + 1)[some]).astype(np.int64)
    out[:, local] = _is_local(out[:, dst], rules)
    return np.ascontiguousarray(out)


def _is_local(dst: Array, rules: FirstMatch) -> Array:
    low, high = np.array(rules.local, np.int64).reshape(-1, 2).T
    at = np.searchsorted(low, dst.astype(np.int64), "right") - 1
    return (at >= 0) & (dst <= high[at]) if len(low) else np.zeros(len(dst), bool)


def batch(rules: FirstMatch, at: Array, *, plain: bool = False) -> PacketBatch:
    """Headers as packets, each with a given egress interface.

    Args:
        rules: for the interfaces' names.
        at: headers.
        plain: rules that test neither interfaces nor states: these columns are constants.
    """
    column = {name: np.ascontiguousarray(at[:, i]) for i, name in enumerate(FIELDS)}
    names = (NAMELESS, *rules.interfaces)
    columns: dict[str, Any] = {name: column[name] for name in ("src", "dst")}
    columns |= {name: column[name].astype(np.uint16) for name in ("sport", "dport")}
    columns["proto"] = column["proto"].astype(np.uint8)
    if plain:
        columns |= {"iif": NAMELESS, "oif": NAMELESS, "state": "new"}
    else:
        columns |= {name: column[name].astype(np.int16) for name in ("iif", "oif")}
        columns["state"] = column["state"].astype(np.uint8)
    return PacketBatch.from_columns(columns, len(at), interfaces=names)


def headers_of(rules: FirstMatch, packets: PacketBatch) -> Array:
    """Packets with given egress interfaces as headers; the opposite of :func:`batch`."""
    known = {name: i + 1 for i, name in enumerate(rules.interfaces)}
    codes = np.array([known.get(name, 0) for name in packets.interfaces] + [0], np.uint32)
    out = np.zeros((len(packets), len(FIELDS)), np.uint32)
    for i, name in enumerate(FIELDS[:-1]):
        values = packets.column(name)
        out[:, i] = codes[values] if name in ("iif", "oif") else values
    out[:, -1] = _is_local(out[:, 1], rules)
    return out
