"""1.0 to 1.4: a DOCKER chain in nat only; filter rules all stand at the head of FORWARD, the newest first."""

from __future__ import annotations

from fastpath.docker.layouts.common import ESTABLISHED, accept_port, link_rules
from fastpath.docker.layouts.forward import ForwardLayout
from fastpath.docker.plan import Linked, Published


class Rules(ForwardLayout):
    """The layout of 1.0."""

    def into_bridge(self, br: str) -> None:
        self.chains.head("filter", "FORWARD", f"-o {br} {ESTABLISHED}")

    def port(self, port: Published, br: str) -> None:
        self.dnat(port, br)
        self.chains.head("filter", "FORWARD", accept_port(port, br))

    def link(self, link: Linked, br: str) -> None:
        for rule in link_rules(link, br):
            self.chains.head("filter", "FORWARD", rule)
