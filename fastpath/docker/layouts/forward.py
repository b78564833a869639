"""What 1.0 to 27 share: each network's rules stand at the head of FORWARD, the newest network's first.

Published ports are let in one by one, and a container that reaches itself through its own published port is masqueraded
by port, with the userland proxy or without (1.5).
"""

from __future__ import annotations

from fastpath.docker.layouts.common import ESTABLISHED, Layout, accept_port, icc_target
from fastpath.docker.plan import Published, Segment


class ForwardLayout(Layout):
    """Layouts whose filter rules stand in FORWARD and DOCKER."""

    def network(self, net: Segment, br: str) -> None:
        if net.internal:
            self.icc(net, br)
        else:
            self.masquerade(net, br)
            self.icc(net, br)
            self.chains.head("filter", "FORWARD", f"-i {br} ! -o {br} -j ACCEPT")
            self.into_bridge(br)
        self.isolate(net, br)

    def icc(self, net: Segment, br: str) -> None:
        """Between containers of the network: accepted at the head; dropped (1.7) at the end, behind DOCKER."""
        rule = f"-i {br} -o {br} -j {icc_target(net)}"
        if net.icc or not self.engine.since(1, 7):
            self.chains.head("filter", "FORWARD", rule)
        else:
            self.chains.tail("filter", "FORWARD", rule)

    def into_bridge(self, br: str) -> None:
        """Answers into the bridge, and (1.5) what DOCKER lets in; which of the two is first changed in 17.04."""
        jump, answers = f"-o {br} -j DOCKER", f"-o {br} {ESTABLISHED}"
        for rule in (jump, answers) if self.engine.since(17, 4) else (answers, jump):
            self.chains.head("filter", "FORWARD", rule)

    def isolate(self, net: Segment, br: str) -> None:
        """What keeps this network from the others."""

    def port(self, port: Published, br: str) -> None:
        if port.attachment.segment.mode != "routed":
            self.dnat(port, br)
        self.chains.tail("filter", "DOCKER", accept_port(port, br))
        if port.attachment.segment.mode != "routed":
            self.hairpin(port)
