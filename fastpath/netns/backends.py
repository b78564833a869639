"""Where iptables-nft 1.8.9 itself does other things with a ruleset than iptables-legacy does; all of it measured.

The engines follow legacy, whose semantics are those of the kernel's ``ip_tables``. A packet that meets one of these
differences cannot agree with both back ends; it is told apart rather than counted as a disagreement.
"""

from __future__ import annotations

import numpy as np

from fastpath.host.model import Host
from fastpath.netns.job import Array
from fastpath.netns.plan import uses
from fastpath.packets.batch import PacketBatch
from fastpath.ruleset.model import PortRange, Rule, Ruleset


def differences(host: Host, packets: PacketBatch, backend: str) -> tuple[Array, tuple[str, ...]]:
    """Which packets the two back ends treat differently.

    Returns:
        An int16 array of codes (0: they agree) and the reasons that the codes index (the first is empty). Only ``nft``
        ever differs.
    """
    codes = np.zeros(len(packets), np.int16)
    texts = [""]
    if backend == "nft":
        whole = _ruleset_difference(host.ruleset)
        if whole is not None:
            texts.append(whole)
            codes[:] = 1
        elif not uses(host).tracked:
            texts.append("iptables-nft reads the data of a later fragment as if it were a TCP or UDP header")
            fragments = (packets.column("frag") == 2) & np.isin(packets.column("proto"), _read_headers(host.ruleset))
            codes[fragments] = 1
    return codes, tuple(texts)


def _ruleset_difference(ruleset: Ruleset) -> str | None:
    if any(_tests_no_port(rule) for t in ruleset.tables for chain in t.chains for rule in chain.rules):
        return "iptables-nft takes a port that is not in 0:65535 for any port, legacy for none"
    if any(_tests_two_negated_ports(rule) for t in ruleset.tables for chain in t.chains for rule in chain.rules):
        return "iptables-nft takes two negated ports for one negated pair, legacy for two tests"
    security, nat = ruleset.table("security"), ruleset.table("nat")
    if security is not None and nat is not None:
        chains = [chain for chain in (security.chain("INPUT"), nat.chain("INPUT")) if chain is not None]
        if len(chains) == 2 and any(chain.rules or chain.policy != "ACCEPT" for chain in chains):
            return "iptables-nft walks nat INPUT before security INPUT, legacy the other way round"
    return None


def _tests_no_port(rule: Rule) -> bool:
    return any(option.negated and option.value == PortRange(0, 65535) for match in rule.matches
               if match.module in ("tcp", "udp") for option in match.options)


def _tests_two_negated_ports(rule: Rule) -> bool:
    return any(sum(option.negated for option in match.options if isinstance(option.value, PortRange)) == 2
               for match in rule.matches if match.module in ("tcp", "udp"))


def _read_headers(ruleset: Ruleset) -> list[int]:
    """Protocols whose header some rule reads in nftables' own way, not through the xtables module."""
    modules = {match.module for t in ruleset.tables for chain in t.chains for rule in chain.rules
               for match in rule.matches if match.options}
    return [number for module, number in (("tcp", 6), ("udp", 17)) if module in modules]
