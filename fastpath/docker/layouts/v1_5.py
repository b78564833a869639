"""1.5 to 1.8: filter DOCKER takes the accepts of published ports; a container may reach itself through its own port."""

from __future__ import annotations

from fastpath.docker.layouts.forward import ForwardLayout


class Rules(ForwardLayout):
    """The layout of 1.5."""

    def start(self) -> None:
        super().start()
        self.chains.make("filter", "DOCKER")
