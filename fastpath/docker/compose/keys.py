"""Which keys a Compose file may have, by the Compose specification; what is not listed is an error, ``x-`` aside."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from fastpath.docker.errors import TopologyError

TOP = frozenset("version name services networks volumes configs secrets include models".split())
SERVICE = frozenset(
    """
    annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name
    cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec
    depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname driver_opts entrypoint
    env_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc
    isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models
    network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop privileged
    profiles provider pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt shm_size
    stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts
    volumes volumes_from working_dir
    """.split())
NETWORK = frozenset("attachable driver driver_opts enable_ipv4 enable_ipv6 external internal ipam labels name".split())
ENDPOINT = frozenset(
    """
    aliases driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips mac_address priority
    """.split())
IPAM = frozenset("config driver options".split())
IPAM_CONFIG = frozenset("aux_addresses gateway ip_range subnet".split())
PORT = frozenset("app_protocol host_ip mode name protocol published target".split())


def mapping(value: Any, known: Iterable[str], where: str) -> dict[str, Any]:
    """`value`, which must be a mapping of known keys (or nothing, which is an empty one).

    Raises:
        TopologyError: something else, or a key that is not known; the nearest known one is named.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TopologyError(f"{where}: {value!r} should be a mapping")
    known = frozenset(known)
    for key in value:
        if key not in known and not str(key).startswith("x-"):
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise TopologyError(f"{where}: unknown key {key!r}{hint}")
    return value


def listing(value: Any, where: str) -> list[Any]:
    """`value`, which must be a list (or nothing, which is an empty one).

    Raises:
        TopologyError: something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise TopologyError(f"{where}: {value!r} should be a list")
    return value


def boolean(value: Any, where: str, default: bool = False) -> bool:
    """`value`, which must be true or false, written as YAML's or (after interpolation) as text.

    Raises:
        TopologyError: something else.
    """
    if value is None:
        return default
    text = str(value).lower()
    if text not in ("true", "false"):
        raise TopologyError(f"{where}: {value!r} should be true or false")
    return text == "true"


def integer(value: Any, where: str, default: int = 0) -> int:
    """`value`, which must be a whole number.

    Raises:
        TopologyError: something else.
    """
    if value is None:
        return default
    try:
        if isinstance(value, bool) or isinstance(value, float):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise TopologyError(f"{where}: {value!r} should be a whole number") from None
