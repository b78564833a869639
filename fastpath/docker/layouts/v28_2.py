"""28.2 to 28.5: raw drops what reaches a container past its bridge, by address and no longer by port."""

from __future__ import annotations

from fastpath.docker.layouts import v28_0_1
from fastpath.docker.plan import Attachment, Published


class Rules(v28_0_1.Rules):
    """The layout of 28.2."""

    def endpoint(self, place: Attachment, br: str) -> None:
        net = place.segment
        if net.internal or net.mode != "nat" or not self.raw or self.plan.daemon.allow_direct_routing:
            return
        for interface in net.trusted_interfaces:
            self.chains.tail("raw", "PREROUTING", f"-d {place.text}/32 -i {interface} -j ACCEPT")
        self.chains.tail("raw", "PREROUTING", f"-d {place.text}/32 ! -i {br} -j DROP")

    def protect_port(self, port: Published, br: str) -> None:
        """The endpoint is protected as a whole."""
