"""What 28 and later share: DOCKER drops what no rule let into a bridge, and raw drops what came past its bridge.

Published ports are put to the head of DOCKER, before the DROP that each network appends. A container is hairpinned by
port only where there is no userland proxy.
"""

from __future__ import annotations

from fastpath.docker.layouts.common import Layout, accept_port, icc_target, match_port
from fastpath.docker.plan import Published, Segment


class ClosedLayout(Layout):
    """Layouts of 28 and later."""

    outgoing = "DOCKER-FORWARD"

    def network(self, net: Segment, br: str) -> None:
        if net.internal:
            self.chains.tail("filter", self.outgoing, f"-i {br} -o {br} -j {icc_target(net)}")
            self.isolate_internal(net, br)
            return
        self.masquerade(net, br)
        self.default_rules(net, br)
        if net.icc:
            self.chains.tail("filter", self.outgoing, f"-i {br} -j ACCEPT")
        else:
            self.chains.tail("filter", self.outgoing, f"-i {br} -o {br} -j DROP")
            self.chains.tail("filter", self.outgoing, f"-i {br} ! -o {br} -j ACCEPT")
        self.into_bridge(net, br)
        self.isolate(net, br)

    def default_rules(self, net: Segment, br: str) -> None:
        """The end of DOCKER: what no published port let in."""
        if net.mode == "routed":
            self.chains.tail("filter", "DOCKER", f"-o {br} -p icmp -j ACCEPT")
        verdict = "ACCEPT" if net.mode == "nat-unprotected" else "DROP"
        self.chains.tail("filter", "DOCKER", f"! -i {br} -o {br} -j {verdict}")

    def into_bridge(self, net: Segment, br: str) -> None:
        """How packets into the bridge find their answers' accept and DOCKER."""

    def isolate(self, net: Segment, br: str) -> None:
        """What keeps this network from the others."""

    def isolate_internal(self, net: Segment, br: str) -> None:
        """What keeps an internal network apart."""

    def port(self, port: Published, br: str) -> None:
        mode = port.attachment.segment.mode
        if mode != "routed":
            self.protect_loopback(port)
            self.dnat(port, br)
            if not self.proxy:
                self.hairpin(port)
        if mode == "nat":
            self.protect_port(port, br)
        if mode != "nat-unprotected":
            self.chains.head("filter", "DOCKER", accept_port(port, br))

    @property
    def raw(self) -> bool:
        """Whether the raw table is written at all."""
        return not self.plan.daemon.insecure_no_raw

    def protect_loopback(self, port: Published) -> None:
        """A port published on a loopback address is for the host alone."""
        if self.raw and port.host_ip is not None and port.host_ip.is_loopback:
            self.chains.tail(
                "raw", "PREROUTING",
                f"-d {port.host_ip}/32 ! -i lo {match_port(port.protocol, port.host_port)} -j DROP")

    def protect_port(self, port: Published, br: str) -> None:
        """Direct access to the container's own port from outside its bridge (to 28.1)."""
        if self.raw:
            self.chains.tail(
                "raw", "PREROUTING",
                f"-d {port.attachment.text}/32 ! -i {br} {match_port(port.protocol, port.container_port)} -j DROP")
