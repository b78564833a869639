"""fastpath: what iptables does to packets, for millions of packets at a time.

The public names; each is imported when it is first used, so that ``import fastpath`` stays light.

    >>> import fastpath as fp
    >>> host = fp.Host.load("data/hosts/docker28-seed")
    >>> host.ruleset.table("nat").chain("DOCKER").rules[1].target.name
    'DNAT'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpath import capacity, docker, netns, reference
    from fastpath.analysis.diff import Diff, diff
    from fastpath.analysis.explain import explain
    from fastpath.analysis.flows import evaluate_flows
    from fastpath.analysis.lint import lint
    from fastpath.analysis.query import (
        assert_blocked,
        assert_reaches,
        assert_same,
        field,
        parse_condition,
        query,
    )
    from fastpath.engine import Config, Engine, compile, load_engine
    from fastpath.errors import (
        AbsentColumnError,
        CompileError,
        EditError,
        FastpathError,
        HostError,
        PacketError,
        ParseError,
        QueryError,
        UnavailableError,
    )
    from fastpath.host.model import Host
    from fastpath.packets import Flag, Hook, Packet, PacketBatch, Result, State, Verdict, synth
    from fastpath.packets.files import read_csv, read_packets, read_parquet
    from fastpath.packets.schema import Leg, Outcome
    from fastpath.ruleset import Ruleset, load_ruleset, load_script, parse_ruleset

__version__ = "0.1.0"

_WHERE = {
    "Diff": "fastpath.analysis.diff", "diff": "fastpath.analysis.diff", "explain": "fastpath.analysis.explain",
    "evaluate_flows": "fastpath.analysis.flows", "lint": "fastpath.analysis.lint", "Config": "fastpath.engine",
    "assert_blocked": "fastpath.analysis.query", "assert_reaches": "fastpath.analysis.query",
    "assert_same": "fastpath.analysis.query", "field": "fastpath.analysis.query",
    "parse_condition": "fastpath.analysis.query", "query": "fastpath.analysis.query",
    "Engine": "fastpath.engine", "compile": "fastpath.engine", "load_engine": "fastpath.engine",
    "AbsentColumnError": "fastpath.errors", "CompileError": "fastpath.errors", "EditError": "fastpath.errors",
    "FastpathError": "fastpath.errors", "HostError": "fastpath.errors", "PacketError": "fastpath.errors",
    "ParseError": "fastpath.errors", "QueryError": "fastpath.errors", "UnavailableError": "fastpath.errors",
    "Host": "fastpath.host.model", "Flag": "fastpath.packets", "Hook": "fastpath.packets",
    "Packet": "fastpath.packets", "PacketBatch": "fastpath.packets", "Result": "fastpath.packets",
    "State": "fastpath.packets", "Verdict": "fastpath.packets", "read_csv": "fastpath.packets.files",
    "read_packets": "fastpath.packets.files", "read_parquet": "fastpath.packets.files",
    "Leg": "fastpath.packets.schema", "Outcome": "fastpath.packets.schema", "Ruleset": "fastpath.ruleset",
    "load_ruleset": "fastpath.ruleset", "load_script": "fastpath.ruleset", "parse_ruleset": "fastpath.ruleset",
}
_MODULES = {
    "capacity": "fastpath.capacity", "docker": "fastpath.docker", "netns": "fastpath.netns",
    "synth": "fastpath.packets.synth", "reference": "fastpath.reference",
}

__all__ = [
    "AbsentColumnError", "CompileError", "Config", "Diff", "EditError", "Engine", "FastpathError", "Flag", "Hook",
    "Host", "HostError", "Leg", "Outcome", "Packet", "PacketBatch", "PacketError", "ParseError", "QueryError", "Result",
    "Ruleset", "State", "UnavailableError", "Verdict", "__version__", "assert_blocked", "assert_reaches", "assert_same",
    "capacity", "compile", "diff", "docker", "evaluate_flows", "explain", "field", "lint", "load_engine",
    "load_ruleset", "load_script", "netns", "parse_condition", "parse_ruleset", "query", "read_csv", "read_packets",
    "read_parquet", "reference", "synth",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'fastpath' has no attribute {name!r}")
