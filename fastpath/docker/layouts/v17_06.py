"""17.06 to 18.04: DOCKER-USER, the user's own chain, before DOCKER-ISOLATION."""

from __future__ import annotations

from fastpath.docker.layouts import v1_10


class Rules(v1_10.Rules):
    """The layout of 17.06."""

    def start(self) -> None:
        self.chains.make("filter", "DOCKER-USER")
        self.chains.tail("filter", "DOCKER-USER", "-j RETURN")
        super().start()

    def arrange(self) -> None:
        super().arrange()
        self.chains.top("filter", "FORWARD", "-j DOCKER-USER")
