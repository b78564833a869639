"""How long conntrack keeps an entry after its last packet, by protocol and state.

The defaults are those of the kernel's documentation, Documentation/networking/nf_conntrack-sysctl.rst (Linux 6.x),
under the same names without the prefix ``nf_conntrack_``, and a test asks the running kernel for them. Only
``sctp_timeout_established`` is what Linux 6.18 has; its documentation still says five days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from fastpath.errors import FastpathError
from fastpath.host.model import Host

PREFIX = "net.netfilter.nf_conntrack_"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, by the sysctl's name without ``net.netfilter.nf_conntrack_``.

    ``tcp_timeout_unacknowledged`` and ``tcp_timeout_max_retrans`` are not among them: they shorten the life of
    connections that die with data under way, and leaving them out errs on the side of too many entries.
    """

    tcp_timeout_syn_sent: float = 120
    tcp_timeout_syn_recv: float = 60
    tcp_timeout_established: float = 432_000
    tcp_timeout_fin_wait: float = 120
    tcp_timeout_last_ack: float = 30
    tcp_timeout_time_wait: float = 120
    tcp_timeout_close: float = 10
    udp_timeout: float = 30
    udp_timeout_stream: float = 120
    icmp_timeout: float = 30
    gre_timeout: float = 30
    gre_timeout_stream: float = 180
    sctp_timeout_established: float = 210
    sctp_timeout_cookie_wait: float = 3
    sctp_timeout_closed: float = 10
    generic_timeout: float = 600

    @classmethod
    def read(cls, given: Mapping[str, float] | Timeouts | None) -> Timeouts:
        """The defaults, with what is given in their place; names may carry the sysctl's prefix.

        Raises:
            FastpathError: an unknown name, or no number of seconds above zero.
        """
        if given is None:
            return cls()
        if isinstance(given, Timeouts):
            return given
        known = [f.name for f in fields(cls)]
        values: dict[str, float] = {}
        for key, value in given.items():
            name = key.removeprefix("net.netfilter.").removeprefix("nf_conntrack_")
            if name not in known:
                raise FastpathError(f"there is no timeout {key!r}; there are {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise FastpathError(f"timeout {key}: {value!r} should be a number of seconds above 0")
            values[name] = float(value)
        return cls(**values)

    @classmethod
    def of_host(cls, host: Host) -> Timeouts:
        """What the host's sysctls say, as far as they were captured; the defaults for the rest."""
        values: dict[str, float] = {}
        for field in fields(cls):
            found = host.sysctl(PREFIX + field.name, -1)
            if found > 0:
                values[field.name] = float(found)
        return cls(**values)

    def to_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)
