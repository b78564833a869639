"""What netfilter will cost a host, before it exists: nanoseconds for each packet, how they grow, and what runs out.

A folder for each question: ``cpu`` (nanoseconds a packet), ``growth`` (the same as a host grows), ``connections``
(conntrack's table), ``ports`` (source NAT), ``traffic`` (profiles), ``report`` (all of it on a page). The folders are
named other than the functions, because a module would hide a function of its name; names are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpath.capacity.connections.lifetimes import ConnectionClass
    from fastpath.capacity.connections.model import ConntrackResult, conntrack, syn_flood
    from fastpath.capacity.connections.timeouts import Timeouts
    from fastpath.capacity.cpu.calibrate import calibrate
    from fastpath.capacity.cpu.evaluate import cost
    from fastpath.capacity.cpu.model import CostModel
    from fastpath.capacity.cpu.result import CostResult
    from fastpath.capacity.durations import Duration
    from fastpath.capacity.growth.result import SweepResult
    from fastpath.capacity.growth.sweep import mpps_budget, sweep
    from fastpath.capacity.ports.model import PortRange, SnatFlow, SnatResult, snat_ports
    from fastpath.capacity.report.gather import CapacityReport, gather
    from fastpath.capacity.traffic.packets import Traffic
    from fastpath.capacity.traffic.places import names_of
    from fastpath.capacity.traffic.profile import Profile, ProfileError

_WHERE = {
    "CostModel": "cpu.model", "CostResult": "cpu.result", "calibrate": "cpu.calibrate", "cost": "cpu.evaluate",
    "SweepResult": "growth.result", "mpps_budget": "growth.sweep", "sweep": "growth.sweep",
    "ConnectionClass": "connections.lifetimes", "ConntrackResult": "connections.model",
    "conntrack": "connections.model", "syn_flood": "connections.model", "Timeouts": "connections.timeouts",
    "Duration": "durations", "PortRange": "ports.model", "SnatFlow": "ports.model", "SnatResult": "ports.model",
    "snat_ports": "ports.model", "CapacityReport": "report.gather", "gather": "report.gather",
    "Traffic": "traffic.packets", "names_of": "traffic.places", "Profile": "traffic.profile",
    "ProfileError": "traffic.profile",
}
"""Public name -> module of this package."""

__all__ = [
    "CapacityReport", "ConnectionClass", "ConntrackResult", "CostModel", "CostResult", "Duration", "PortRange",
    "Profile", "ProfileError", "SnatFlow", "SnatResult", "SweepResult", "Timeouts", "Traffic", "calibrate", "conntrack",
    "cost", "gather", "mpps_budget", "names_of", "snat_ports", "sweep", "syn_flood",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
