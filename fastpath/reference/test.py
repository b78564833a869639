"""What a rule's match becomes: small tests, each a question to a packet under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastpath.host.ipset import IpSetTester
from fastpath.host.model import Host
from fastpath.reference.route import Router
from fastpath.reference.state import PacketState

Check = Callable[[PacketState], bool | None]
"""True: holds. False: does not. None: undecided."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test.

    Attributes:
        text: the test as iptables prints it, ``-i docker0`` or ``-m conntrack --ctstate NEW``.
        check: the question.
        seen: what the packet has to show, for people: "packet came in on eth0".
        sure: False where `check` may answer None.
        module: the match's module, empty for builtin tests.
        reason: why the answer may be None.
        telling: few packets pass it; asked before the others (tests have no effects, so that the order is free).
    """

    __test__ = False

    text: str
    check: Check
    seen: Callable[[PacketState], str]
    sure: bool = True
    module: str = ""
    reason: str = ""
    telling: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What tests may ask besides the packet."""

    host: Host
    router: Router
    ipsets: IpSetTester
