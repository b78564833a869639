"""The ``fastpath`` command as users run it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]

RULES = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 10.0.2.15/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:WEB - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j WEB
-A FORWARD -i docker0 -m limit --limit 10/min -j DROP
-A FORWARD -i docker0 -j ACCEPT
-A WEB -s 203.0.113.0/24 -j REJECT --reject-with icmp-port-unreachable
-A WEB -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""

ADDRESSES = """[
{"ifname":"lo","flags":["LOOPBACK","UP"],"addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
{"ifname":"eth0","flags":["UP"],"addr_info":[{"family":"inet","local":"10.0.2.15","prefixlen":24,
 "broadcast":"10.0.2.255","scope":"global"}]},
{"ifname":"docker0","flags":["UP"],"addr_info":[{"family":"inet","local":"172.17.0.1","prefixlen":16,
 "broadcast":"172.17.255.255","scope":"global"}]}
]"""

ROUTES = """[
{"dst":"default","gateway":"10.0.2.2","dev":"eth0"},
{"dst":"10.0.2.0/24","dev":"eth0","scope":"link","prefsrc":"10.0.2.15"},
{"dst":"172.17.0.0/16","dev":"docker0","scope":"link","prefsrc":"172.17.0.1"}
]"""


@pytest.fixture(scope="session")
def fastpath() -> Run:
    """Runs ``fastpath`` with the words given; output is text, and nothing is a terminal."""

    def run(*words: str | Path, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fastpath", *map(str, words)],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture folder with one published port, a rejected network, a limit and a masqueraded bridge."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "iptables-save.txt").write_text(RULES)
    (folder / "ip-addr.json").write_text(ADDRESSES)
    (folder / "ip-route.json").write_text(ROUTES)
    (folder / "sysctl.txt").write_text("net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.rp_filter = 0\n")
    return folder
