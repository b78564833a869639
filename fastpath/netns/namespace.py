"""A fresh network namespace built as a host: devices, addresses, routes, sysctls, sets, rules, and the probes.

Only the judge's child runs this. Every interface is a TAP device: a frame written into it arrives on it, and has been
through all hooks when the system call returns. Nothing that the host would send ever leaves: the probe behind the last
hook drops it before any neighbour is asked for. So no flow is ever confirmed, and packets do not disturb each other.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastpath.errors import UnavailableError
from fastpath.netns.job import Job
from fastpath.netns.wire import HEAD

PRIORITY = 0x5EED0001
"""Socket priority of packets that the judge itself sends: how the probes tell them from the kernel's own answers."""

GROUPS = range(64001, 64012)
(PREROUTING_IN, PREROUTING_OUT, FORWARD_IN, FORWARD_OUT, INPUT_IN, INPUT_OUT, OUTPUT_IN, OUTPUT_OUT, POSTROUTING_OUT,
 ANSWER, REJECTED) = GROUPS
"""Log groups, one a probe: in front of a hook's first chain (IN) and behind its last (OUT); the kernel's own answers;
the twins of REJECT rules."""

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
_TUNSETIFF, _TUNSETPERSIST, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x400454CB, 2, 0x1000
_SIOCGIFHWADDR = 0x8927
_RULES_AT_ONCE = 200
_FIRST, _AFTER_RAW, _AFTER_CONNTRACK, _LAST = -450, -290, -199, 400

_QUIET = (
    ("net/ipv6/conf/all/disable_ipv6", "1", False),
    ("net/ipv6/conf/default/disable_ipv6", "1", False),
    ("net/ipv4/icmp_ratemask", "0", True),
    ("net/ipv4/conf/all/send_redirects", "0", True),
    ("net/ipv4/conf/default/send_redirects", "0", True),
)
"""Nothing of its own accord; and no ICMP error held back."""


def unshare() -> None:
    """Moves this process out of the machine's network and mounts for good.

    Raises:
        UnavailableError: the kernel does not let us.
    """
    flags, uid, gid = _CLONE_NEWNET | _CLONE_NEWNS, os.geteuid(), os.getegid()
    if uid:
        flags |= _CLONE_NEWUSER
    _unshare(flags)
    try:
        if uid:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise UnavailableError(f"user namespace: {error}") from None
    run(["mount", "--make-rprivate", "/"])
    run(["mount", "-t", "tmpfs", "none", "/run"])  # the lock file of legacy iptables


def fresh_network() -> None:
    """Moves this process into one more network namespace; the one before ends with its last device and socket."""
    _unshare(_CLONE_NEWNET)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise UnavailableError(f"namespaces: {os.strerror(ctypes.get_errno())}")


def run(command: list[str], text: str | None = None) -> str:
    """A program's standard output.

    Raises:
        UnavailableError: there is no such program, or it fails; with its own words.
    """
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UnavailableError(f"the program {command[0]} is missing") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise UnavailableError(f"{' '.join(command)} failed: {words[:2000]}")
    return done.stdout


class Devices:
    """The namespace's TAP devices, by interface name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.files: dict[str, int] = {}
        self.addresses: dict[str, bytes] = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for name in names:
                try:
                    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                    self.files[name] = file
                    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TAP | _IFF_NO_PI))
                    # it then ends with the namespace, for which nobody has to wait, and not when it is closed
                    fcntl.ioctl(file, _TUNSETPERSIST, 1)
                except OSError as error:
                    self.close()
                    raise UnavailableError(f"TAP device {name}: {error.strerror}") from None
                found = fcntl.ioctl(control, _SIOCGIFHWADDR, struct.pack("16s16x", name.encode()))
                self.addresses[name] = found[18:24]

    def close(self) -> None:
        """Lets go of the devices; they end with the namespace."""
        for file in self.files.values():
            os.close(file)
        self.files.clear()


def build(job: Job, *, probes: bool = True) -> Devices:
    """Makes the current, fresh network namespace into the job's host; without `probes` nothing watches packets.

    Raises:
        UnavailableError: a program refuses something, with its own words.
    """
    _write(_QUIET)
    _write(job.sysctls[:job.early_sysctls])
    if probes:
        run(["nft", "-f", "-"], _probes(job))
    devices = Devices(job.devices)
    try:
        run(["ip", "-batch", "-"], job.links)
        _write(job.sysctls[job.early_sysctls:])
        if job.ipsets:
            run(["ipset", "-exist", "restore"], job.ipsets)  # of a range, several entries may fall together
        _restore(job)
    except UnavailableError:
        devices.close()
        raise
    return devices


def _restore(job: Job) -> None:
    """Loads the rules at one go, or a few at a time where the program may not send so much to the kernel at once
    (iptables-nft without real root)."""
    command = [f"iptables-{job.backend}-restore"]
    try:
        run(command, job.rules)
    except UnavailableError as error:
        if "Message too long" not in str(error):
            raise
        for number, part in enumerate(_parts(job.rules)):
            run([*command, "--noflush"] if number else command, part)


def _parts(rules: str) -> Iterator[str]:
    """A save file in pieces: all tables with their chains, then a few rules each."""
    table = ""
    heads: list[str] = []
    bodies: list[tuple[str, str]] = []
    for line in rules.splitlines():
        if line.startswith("*"):
            table = line
        if line.startswith("-A"):
            bodies.append((table, line))
        else:
            heads.append(line)
    yield "\n".join(heads) + "\n"
    for table in dict.fromkeys(table for table, _ in bodies):
        lines = [line for name, line in bodies if name == table]
        for start in range(0, len(lines), _RULES_AT_ONCE):
            yield "\n".join([table, *lines[start:start + _RULES_AT_ONCE], "COMMIT", ""])


def _write(sysctls: Iterable[tuple[str, str, bool]]) -> None:
    for path, value, needed in sysctls:
        try:
            Path("/proc/sys", path).write_text(value)
        except OSError as error:
            if needed:
                raise UnavailableError(f"sysctl {path} = {value}: {error.strerror}") from None


def _probes(job: Job) -> str:
    """The nftables table that watches: chains in front of and behind every hook's iptables chains."""

    def chain(name: str, hook: str, priority: int, *rules: str) -> str:
        body = "\n".join(rules)
        return f"chain {name} {{ type filter hook {hook} priority {priority}; policy accept;\n{body}\n}}\n"

    def log(group: int) -> str:
        return f"log group {group} snaplen {HEAD} queue-threshold 1"

    own = f"meta priority {PRIORITY >> 16:x}:{PRIORITY & 0xFFFF:x}"
    answer = own.replace("priority", "priority !=")
    looped = f'iifname "lo" {own}'  # made by the host and on its way back in: it keeps what OUTPUT gave it
    marks = "meta mark set ip id map @marks"
    end = " drop" if job.connections is None else ""  # a connection begins when its first packet has left the last hook
    text = [
        "table ip fastpath {\n",
        "map marks { typeof ip id : meta mark; }\n",
        chain("p0", "prerouting", _FIRST, f"{looped} {log(PREROUTING_IN)} accept", marks, log(PREROUTING_IN)),
        chain("p1", "prerouting", _LAST, log(PREROUTING_OUT)),
        chain("f0", "forward", _FIRST, log(FORWARD_IN)),
        chain("f1", "forward", _LAST, log(FORWARD_OUT)),
        chain("i0", "input", _FIRST, log(INPUT_IN)),
        chain("i1", "input", _LAST, f"{log(INPUT_OUT)}{end}"),
        chain("o0", "output", _FIRST, f"{answer} {log(ANSWER)} drop", marks, log(OUTPUT_IN)),
        chain("o1", "output", _LAST, log(OUTPUT_OUT)),
        # of the host's own broadcasts and multicasts a copy, which has no socket, goes back in: that is not judged
        chain("q0", "postrouting", _FIRST, "meta skuid >= 0 accept", f"{own} drop"),
        chain("q1", "postrouting", _LAST, log(POSTROUTING_OUT), f'oifname != "lo"{end}' if end else ""),
    ]
    if job.tracked:
        text.append("set untracked { typeof ip id; }\n")
        text += [chain(f"u{hook}", hook, _AFTER_RAW, "ip id @untracked notrack") for hook in ("prerouting", "output")]
    if job.marks_connections:
        text.append("map connmarks { typeof ip id : ct mark; }\n")
        text += [chain(f"c{hook}", hook, _AFTER_CONNTRACK, f"{looped} accept" if hook == "prerouting" else "",
                       "ct state new ct mark set ip id map @connmarks") for hook in ("prerouting", "output")]
    return "".join(text) + "}\n"


def set_identities(marks: dict[int, int], untracked: list[int], connmarks: dict[int, int], job: Job) -> None:
    """Tells the probes which packets, by their identification field, carry a mark or shall not be tracked."""
    text = ["flush map ip fastpath marks\n", _elements("marks", [f"{k} : {v}" for k, v in marks.items()])]
    if job.tracked:
        text += ["flush set ip fastpath untracked\n", _elements("untracked", [str(k) for k in untracked])]
    if job.marks_connections:
        text += ["flush map ip fastpath connmarks\n",
                 _elements("connmarks", [f"{k} : {v}" for k, v in connmarks.items()])]
    run(["nft", "-f", "-"], "".join(text))


def _elements(name: str, items: list[str]) -> str:
    return f"add element ip fastpath {name} {{ {', '.join(items)} }}\n" if items else ""


_POLICY = re.compile(r":(\S+) (\S+) \[(\d+):(\d+)\]")
_RULE = re.compile(r"\[(\d+):(\d+)\] -A (\S+)")


def counters(job: Job) -> dict[tuple[str, str, int], tuple[int, int]]:
    """What every rule and policy counted, twins left out and numbers as in the host's own ruleset."""
    found: dict[tuple[str, str, int], tuple[int, int]] = {}
    place: dict[tuple[str, str], int] = {}
    skipped: dict[tuple[str, str], int] = {}
    table = ""
    command = [f"iptables-{job.backend}-save", "-c"]
    # legacy takes the list of all tables from a file that may not be read in a user namespace
    saves = [run(command)] if job.backend == "nft" else [run([*command, "-t", name]) for name in job.tables]
    for line in "".join(saves).splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif policy := _POLICY.match(line):
            if policy[2] != "-":
                found[table, policy[1], 0] = int(policy[3]), int(policy[4])
        elif rule := _RULE.match(line):
            chain = table, rule[3]
            place[chain] = number = place.get(chain, 0) + 1
            if (*chain, number) in job.twins:
                skipped[chain] = skipped.get(chain, 0) + 1
            else:
                found[*chain, number - skipped.get(chain, 0)] = int(rule[1]), int(rule[2])
    return found
