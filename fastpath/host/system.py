"""The running machine as a Host.

Reads with the programs that an administrator would use, and changes nothing: `iptables-save -c`, `ip -j addr`,
`ip -j route show table all`, `ip -j rule`, `ipset save`, and the sysctls from /proc/sys. Rules of the other
iptables variant (legacy beside nf_tables) also act on packets but are not read; a warning says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path

from fastpath.errors import UnavailableError
from fastpath.host.load import build_host, sysctl_key
from fastpath.host.model import Host
from fastpath.ruleset.model import Ruleset
from fastpath.ruleset.parse import parse_ruleset

_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/*/accept_local",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/route_localnet",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv4/ip_local_port_range",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_loose",
    "net/bridge/bridge-nf-call-iptables",
)
"""What decides a packet's way beside the rules, as paths below /proc/sys."""


def read_system(*, proc_sys: Path = Path("/proc/sys")) -> Host:
    """The running machine's IPv4 rules and surroundings; see :meth:`Host.from_system`.

    Raises:
        UnavailableError: a program is missing or refused (mostly for want of root's rights); the message says which.
        ParseError, HostError: a program printed what is not understood.
    """
    saved = _run(["iptables-save", "-c"])
    ruleset = parse_ruleset(saved, source="iptables-save -c")
    _warn_of_other_rules(saved)
    return build_host(
        ruleset,
        addresses=_run(["ip", "-j", "-d", "addr"]),
        routes=_run(["ip", "-j", "-4", "route", "show", "table", "all"]),
        rules=_run(["ip", "-j", "-4", "rule"]),
        sysctls=read_sysctls(proc_sys),
        ipsets=_ipsets(ruleset),
    )


def read_sysctls(proc_sys: Path) -> str:
    """The sysctls that matter as ``key=value`` lines; those that cannot be read are left out."""
    lines = []
    for pattern in _SYSCTLS:
        for path in sorted(proc_sys.glob(pattern)):
            key = sysctl_key(str(path.relative_to(proc_sys)))
            try:
                lines.append(f"{key}={' '.join(path.read_text(encoding='ascii').split())}\n")
            except (OSError, UnicodeDecodeError):
                continue
    return "".join(lines)


def _run(command: list[str]) -> str:
    """What a program prints."""
    shown = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_c_locale())
    except FileNotFoundError:
        raise UnavailableError(
            f"the program {command[0]!r} is not installed, or not on the PATH (often it is in /usr/sbin)") from None
    except OSError as error:
        raise UnavailableError(f"{shown!r} cannot be run: {error.strerror or error}") from None
    complaint = done.stderr.strip()
    if done.returncode != 0 or (complaint and not done.stdout.strip()):
        needs_root = "ermission" in complaint or "must be root" in complaint or "not permitted" in complaint
        hint = "; reading a machine's rules needs root's rights" if needs_root else ""
        raise UnavailableError(f"{shown!r} failed: {complaint or f'exit status {done.returncode}'}{hint}")
    return done.stdout


def _c_locale() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _ipsets(ruleset: Ruleset) -> str:
    """`ipset save`. Only where the rules use sets must it succeed."""
    try:
        return _run(["ipset", "save"])
    except UnavailableError:
        if uses_sets(ruleset):
            raise
        return ""


def uses_sets(ruleset: Ruleset) -> bool:
    """True where a rule tests or fills an ipset."""
    return any(
        any(match.module == "set" for match in rule.matches) or (rule.target is not None and rule.target.name == "SET")
        for table in ruleset.tables for chain in table.chains for rule in chain.rules
    )


def _warn_of_other_rules(saved: str) -> None:
    """Warns where the iptables variant that `saved` does not come from holds rules too."""
    other = "iptables-legacy-save" if "(nf_tables)" in saved else "iptables-nft-save"
    if shutil.which(other) is None:
        return
    try:
        text = _run([other])
    except UnavailableError:
        return
    lines = text.splitlines()
    holds = sum(line.startswith("-A ") or (line.startswith(":") and " DROP " in line) for line in lines)
    if holds:
        warnings.warn(
            f"{other} shows {holds} rules and policies that also act on packets; they are not part of this host",
            stacklevel=3)
