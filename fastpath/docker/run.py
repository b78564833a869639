"""Containers from `docker run` (and `docker create`) command lines: what of them concerns the network.

Every option is known by name, so that an option's value is never taken for the image; what does not concern packets is
read and left aside.
"""

from __future__ import annotations

import shlex

from fastpath.docker.errors import TopologyError
from fastpath.docker.ports import parse_short, port_range
from fastpath.docker.topology import PROTOCOLS, Container, Endpoint

_FLAGS = frozenset(
    """
    d detach i interactive t tty P publish-all q quiet rm init privileged read-only no-healthcheck oom-kill-disable
    sig-proxy disable-content-trust use-api-socket help
    """.split())
"""Options without a value (or with one behind ``=``)."""
_VALUES = frozenset(
    """
    a attach c cpu-shares e env h hostname l label m memory u user v volume w workdir add-host annotation blkio-weight
    blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota
    cpu-rt-period cpu-rt-runtime cpus cpuset-cpus cpuset-mems detach-keys device device-cgroup-rule device-read-bps
    device-read-iops device-write-bps device-write-iops dns dns-opt dns-option dns-search domainname entrypoint env-file
    expose gpus group-add health-cmd health-interval health-retries health-start-interval health-start-period
    health-timeout io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label-file link link-local-ip
    log-driver log-opt mac-address memory-reservation memory-swap memory-swappiness mount name net net-alias network
    network-alias oom-score-adj p pid pids-limit platform publish pull restart runtime security-opt shm-size
    stop-signal stop-timeout storage-opt sysctl tmpfs ulimit userns uts volume-driver volumes-from
    """.split())


def parse_run(command: str) -> Container:
    """See :meth:`Container.from_run`."""
    words = shlex.split(command)
    for lead in (("docker",), ("container",), ("run",), ("create",)):
        if words[:1] == list(lead):
            words.pop(0)
    given = _options(words, command)
    image = words[0] if words else None
    if image is None:
        raise TopologyError(f"docker run {command!r}: the image is missing")
    name = given.get("name", [image.rpartition("/")[2].partition(":")[0]])[-1]
    where = f"docker run --name {name}"
    networks = [*given.get("network", []), *given.get("net", [])]
    mode, endpoints = _network(networks, given.get("ip", []), where)
    ports = [port for text in (*given.get("p", []), *given.get("publish", [])) for port in parse_short(text, where)]
    hosts = []
    for text in given.get("add-host", []):
        host, separator, address = text.partition("=" if "=" in text else ":")
        if not separator or not host or not address:
            raise TopologyError(f"{where}: --add-host {text!r} should be NAME:ADDRESS")
        hosts.append((host, address))
    return Container(
        name, endpoints, mode, tuple(ports), tuple(given.get("link", [])), tuple(_exposed(given, where)),
        publish_all=bool({"P", "publish-all"} & given.keys()), extra_hosts=tuple(hosts))


def _options(words: list[str], command: str) -> dict[str, list[str]]:
    """Takes the options off `words`: name -> values, flags with the value "true"."""
    given: dict[str, list[str]] = {}
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            name, value, equals = _short(word[1:], given)
        if not name:
            continue
        if name in _FLAGS:
            if value.lower() not in ("false", "0"):
                given.setdefault(name, []).append("true")
        elif name in _VALUES:
            if not equals:
                if not words:
                    raise TopologyError(f"docker run {command!r}: the value of {word} is missing")
                value = words.pop(0)
            given.setdefault(name, []).append(value)
        else:
            raise TopologyError(f"docker run {command!r}: unknown option {word!r}")
    return given


def _short(letters: str, given: dict[str, list[str]]) -> tuple[str, str, str]:
    """One-letter options written together (``-itd``, ``-p80:80``): notes the flags, and gives name, value and whether
    the value is there for one that takes it."""
    while letters and letters[0] in _FLAGS:
        given.setdefault(letters[0], []).append("true")
        letters = letters[1:]
    return letters[:1], letters[1:].removeprefix("="), letters[1:]


def _network(networks: list[str], addresses: list[str], where: str) -> tuple[str, tuple[Endpoint, ...]]:
    """Mode and endpoints."""
    names = [network.partition(",")[0].removeprefix("name=") if "=" in network else network for network in networks]
    if len(names) == 1 and (names[0] in ("host", "none") or names[0].startswith("container:")):
        return names[0], ()
    bad = next((n for n in names if n in ("host", "none") or n.startswith("container:")), None)
    if bad is not None:
        raise TopologyError(f"{where}: --network {bad} cannot be combined with others")
    names = ["bridge" if name == "default" else name for name in names]
    if addresses and (not names or names == ["bridge"]):
        raise TopologyError(f"{where}: --ip {addresses[-1]} needs a network of one's own (--network)")
    if names == ["bridge"]:
        return "", ()
    return "", tuple(Endpoint(name, addresses[-1] if addresses and not place else None)
                     for place, name in enumerate(names))


def _exposed(given: dict[str, list[str]], where: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for text in given.get("expose", []):
        ports, _, protocol = text.partition("/")
        if (protocol or "tcp") not in PROTOCOLS:
            raise TopologyError(f"{where}: --expose {text!r}: protocol should be one of {', '.join(PROTOCOLS)}")
        first, last = port_range(ports, f"{where}: --expose")
        found += [(port, protocol or "tcp") for port in range(first, last + 1)]
    return found
