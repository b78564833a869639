"""A host's sets again, with a rule taken out, for some packets only: much less work than another host's."""

from __future__ import annotations

from dataclasses import replace

from fastpath.compiler.fields import FALSE
from fastpath.compiler.flow import Step, Ways
from fastpath.compiler.program import Block
from fastpath.symbolic.hostsets import HostSets
from fastpath.symbolic.space import PacketSet
from fastpath.symbolic.walk import Walker


class WithoutRule(HostSets):
    """What becomes of some packets on a host that lacks one rule; rule ids are those of the whole host.

    It is for rules whose removal leaves the kernel tracking connections, or not, as it did: the way of packets that the
    host was lowered to is taken as it is, but that the rule never matches.
    """

    def __init__(self, whole: HostSets, rule: int, packets: PacketSet) -> None:
        """Args: the host's sets, the id of the rule to leave out, the packets to follow."""
        self.space, self.host, self.refs = whole.space, whole.host, whole.refs
        self.assume, self.alone, self.origin = whole.assume, whole.alone, whole.origin
        self._packets = packets.diagram
        self._ways = _without(whole._ways, rule)
        self._walked = Walker(self.origin, self._ways).run(self._entries())

    def _entries(self) -> dict[str, int]:
        store = self.space.store
        return {way: store.both(diagram, self._packets) for way, diagram in super()._entries().items()}


def _without(ways: Ways, rule: int) -> Ways:
    def block(given: Block) -> Block:
        if all(op.ref != rule for op in given.ops):
            return given
        return replace(given, ops=tuple(replace(op, condition=FALSE) if op.ref == rule else op for op in given.ops))

    def step(given: Step) -> Step:
        if all(op.ref != rule for b in given.blocks.values() for op in b.ops):
            return given
        return replace(given, blocks={key: block(b) for key, b in given.blocks.items()})

    return Ways({way: [step(s) for s in steps] for way, steps in ways.steps.items()}, dict(ways.ends))
