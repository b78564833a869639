"""One judge for all tests, and what happens where the kernel cannot be asked: a skip that says why, or a failure where
FASTPATH_REQUIRE_KERNEL is set."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fastpath import netns


def require(backend: netns.Backend) -> None:
    why = netns.available(backend)
    if why is not None:
        if os.environ.get("FASTPATH_REQUIRE_KERNEL"):
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(params=netns.BACKENDS)
def backend(request: pytest.FixtureRequest) -> netns.Backend:
    """Either back end, where it can be asked."""
    found: netns.Backend = request.param
    require(found)
    return found


@pytest.fixture(scope="session")
def judge() -> Iterator[netns.Judge]:
    """A judge for the whole run."""
    require("nft")
    with netns.Judge() as found:
        yield found
