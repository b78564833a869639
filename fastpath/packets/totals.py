"""What became of many packets, as sums: what a result's summary and counters are made of, without a row a packet.

Sums of results add up, so that any number of packets can be summed up piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastpath.errors import AbsentColumnError, PacketError
from fastpath.packets.result import Decision, Result, RuleCounter, Summary
from fastpath.packets.schema import Flag, Hook, Verdict
from fastpath.ruleset.model import RuleRef

Array = npt.NDArray[Any]
_VERDICTS, _HOOKS = len(Verdict), len(Hook)


class Totals:
    """Sums over results of the same rules.

    Attributes:
        packets: their number.
        rules: rules and policies by id.
        columns: the result columns that were there to be summed up.
        verdicts: int64 by Verdict; needs ``verdict``.
        ended: int64 of shape (verdicts, hooks); needs ``verdict`` and ``hook``.
        decided: int64 of shape (rules + 1, verdicts), row 0 for what no rule decided; needs ``verdict`` and ``rule``.
        choices: packets with the flag NAT_CHOICE; needs ``flags``.
        rule_packets, rule_bytes: int64 by rule id, None where nothing was counted.
    """

    def __init__(self, rules: Sequence[RuleRef], columns: Sequence[str], *, counters: bool = True) -> None:
        self.rules = tuple(rules)
        self.columns = tuple(columns)
        self.packets = 0
        self.choices = 0
        self.verdicts: Array = np.zeros(_VERDICTS, np.int64)
        self.ended: Array = np.zeros((_VERDICTS, _HOOKS), np.int64)
        self.decided: Array = np.zeros((len(self.rules) + 1, _VERDICTS), np.int64)
        self.rule_packets: Array | None = np.zeros(len(self.rules), np.int64) if counters else None
        self.rule_bytes: Array | None = np.zeros(len(self.rules), np.int64) if counters else None

    @classmethod
    def of(cls, result: Result) -> Totals:
        """The sums of one result."""
        totals = cls(result.rules, result.columns, counters="rule_packets" in result.__dict__)
        totals.add(result)
        return totals

    def __repr__(self) -> str:
        return f"Totals({self.packets} packets, {len(self.rules)} rules)"

    def add(self, result: Result) -> None:
        """Adds a result of the same rules and columns.

        Raises:
            PacketError: a result of other rules.
            AbsentColumnError: a column or counters that the first results had are absent.
        """
        if len(result.rules) != len(self.rules):
            raise PacketError(f"a result of {len(result.rules)} rules cannot be added to sums over {len(self.rules)}")
        self.packets += len(result)
        if "verdict" in self.columns:
            verdicts = result.verdict.astype(np.intp)
            if "hook" in self.columns:
                pairs = np.bincount(verdicts * _HOOKS + result.hook, minlength=_VERDICTS * _HOOKS)
                self.ended += pairs.reshape(_VERDICTS, _HOOKS)
            if "rule" in self.columns:
                places = (result.rule.astype(np.intp) + 1) * _VERDICTS + verdicts
                pairs = np.bincount(places, minlength=self.decided.size)
                self.decided += pairs.reshape(self.decided.shape)
                self.verdicts = self.decided.sum(axis=0)
            elif "hook" in self.columns:
                self.verdicts = self.ended.sum(axis=1)
            else:
                self.verdicts += np.bincount(result.verdict, minlength=_VERDICTS)
        if "flags" in self.columns:
            self.choices += int(np.count_nonzero(result.flags & Flag.NAT_CHOICE))
        if self.rule_packets is not None and self.rule_bytes is not None:
            self.rule_packets += result.rule_packets
            self.rule_bytes += result.rule_bytes

    def counters(self) -> tuple[RuleCounter, ...]:
        """Packets and bytes of every rule and policy, in order of their ids.

        Raises:
            AbsentColumnError: nothing was counted.
        """
        if self.rule_packets is None or self.rule_bytes is None:
            raise AbsentColumnError("the counters are absent: they were not asked for (counters=False)")
        return tuple(RuleCounter(ref, p, b) for ref, p, b in zip(
            self.rules, self.rule_packets.tolist(), self.rule_bytes.tolist(), strict=True))

    def summary(self, top: int | None = 20) -> Summary:
        """Numbers of packets by verdict, and by deciding rule and verdict (none of these where ``rule`` is absent).

        Args:
            top: how many decisions to keep; None keeps all.

        Raises:
            AbsentColumnError: ``verdict`` is absent.
        """
        if "verdict" not in self.columns:
            raise AbsentColumnError(f"result column verdict is absent: only {', '.join(self.columns)} were asked for")
        counts = self.verdicts.tolist()
        verdicts = sorted(((v, counts[v]) for v in Verdict if counts[v]), key=lambda e: (-e[1], e[0]))
        pairs = self.decided.ravel()
        found = np.flatnonzero(pairs)
        order = found[np.argsort(-pairs[found], kind="stable")]
        decisions = []
        for pair in order[:top].tolist():
            rule, verdict = divmod(pair, _VERDICTS)
            decisions.append(Decision(self.rules[rule - 1] if rule else None, Verdict(verdict), int(pairs[pair])))
        return Summary(self.packets, tuple(verdicts), tuple(decisions), len(order))
