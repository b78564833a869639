"""A plain numpy baseline: one chain of the filter table, one boolean mask per rule.

What one would write in an afternoon with numpy: a jump takes the packets that reach it along as a smaller batch, and
within a chain every rule is a mask over the chain's packets. It knows only the tests that Docker's filter rules
consist of and refuses anything else, so that it can never be fast by leaving something out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.packets import PacketBatch, State, Verdict
from fastpath.ruleset.model import Match, Negatable, Network, PortRange, Rule, Ruleset

Array = npt.NDArray[Any]

COLUMNS = ("iif", "oif", "src", "dst", "proto", "dport", "frag", "state")
STATES = {
    "NEW": (State.NEW,), "RELATED": (State.RELATED,), "ESTABLISHED": (State.ESTABLISHED, State.REPLY),
    "INVALID": (State.INVALID,), "UNTRACKED": (State.UNTRACKED,),
}
UNSET = 255
FALLEN_THROUGH = 254


def verdicts(ruleset: Ruleset, chain: str, packets: PacketBatch) -> Array:
    """The verdict of every packet in one builtin chain of the filter table.

    Args:
        ruleset: its filter table has to consist of tests that this baseline knows.
        chain: FORWARD, INPUT or OUTPUT.
        packets: with explicit states, and an ``oif`` column where the chain is FORWARD.

    Returns:
        uint8 of Verdict: ACCEPT, DROP or REJECT.

    Raises:
        ValueError: a rule with a test or target that the baseline lacks.
    """
    table = ruleset.table("filter")
    if table is None:
        raise ValueError("no filter table")
    chains = {c.name: c for c in table.chains}
    names = packets.interfaces
    out = np.full(len(packets), UNSET, np.uint8)

    def walk(name: str, rows: Array, columns: dict[str, Array]) -> Array:
        """Walks `rows` through a chain, writing verdicts to `out`; returns which come back to the caller."""
        left = np.ones(len(rows), bool)
        back = np.zeros(len(rows), bool)
        for rule in chains[name].rules:
            if not left.any():
                break
            hit = left & _mask(rule, columns, names)
            if rule.target is None or not hit.any():
                continue
            target = rule.target.name
            if target in chains and not rule.target.goto:
                inner = np.flatnonzero(hit)
                returned = walk(target, rows[inner], {key: values[inner] for key, values in columns.items()})
                left[inner[~returned]] = False
            elif target in ("ACCEPT", "DROP", "REJECT"):
                out[rows[hit]] = Verdict[target]
                left &= ~hit
            elif target == "RETURN":
                back |= hit
                left &= ~hit
            else:
                raise ValueError(f"no baseline for: {rule}")
        return left | back

    everything = np.arange(len(packets))
    rest = walk(chain, everything, {key: packets.column(key) for key in COLUMNS})
    out[rest] = Verdict[chains[chain].policy or "ACCEPT"]
    return out


def _mask(rule: Rule, columns: dict[str, Array], names: tuple[str, ...]) -> Array:
    mask = np.ones(len(columns["src"]), bool)
    for test, column in ((rule.source, "src"), (rule.destination, "dst")):
        if test is not None:
            assert isinstance(test.value, Network)
            found = columns[column] & np.uint32(test.value.mask) == np.uint32(test.value.address)
            mask &= found ^ test.negated
    for test, column in ((rule.in_interface, "iif"), (rule.out_interface, "oif")):
        if test is not None:
            mask &= _interface(test, columns[column], names)
    if rule.protocol is not None:
        mask &= (columns["proto"] == rule.protocol.value) ^ rule.protocol.negated
    if rule.fragment is not None:
        mask &= (columns["frag"] == 2) == rule.fragment
    for match in rule.matches:
        mask &= _match(match, rule, columns)
    return mask


def _interface(test: Negatable, codes: Array, names: tuple[str, ...]) -> Array:
    wanted = str(test.value)
    found = np.zeros(len(codes), bool)
    for code, name in enumerate(names):
        if name == wanted or (wanted.endswith("+") and name.startswith(wanted[:-1])):
            found |= codes == code
    return found ^ test.negated


def _match(match: Match, rule: Rule, columns: dict[str, Array]) -> Array:
    mask = np.ones(len(columns["src"]), bool)
    for option in match.options:
        if match.module == "conntrack" and option.name == "ctstate" and isinstance(option.value, frozenset):
            states = [state for word in option.value for state in STATES[word]]
            mask &= np.isin(columns["state"], states) ^ option.negated
        elif match.module in ("tcp", "udp") and option.name == "dport" and isinstance(option.value, PortRange):
            ports = columns["dport"]
            found = (ports >= option.value.first) & (ports <= option.value.last)
            mask &= (found ^ option.negated) & (columns["frag"] != 2)
        else:
            raise ValueError(f"no baseline for: {rule}")
    return mask
