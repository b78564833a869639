"""Services and networks of a merged Compose file as containers and networks of a topology."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastpath.docker.compose import keys
from fastpath.docker.compose.interpolate import interpolate
from fastpath.docker.compose.merge import merge, normalise, strip
from fastpath.docker.errors import Subject, TopologyError
from fastpath.docker.options import network_options
from fastpath.docker.ports import expand, parse_short, port_range
from fastpath.docker.topology import PROTOCOLS, Container, Endpoint, Network, Port
from fastpath.docker.yamlfile import read_yaml

_DEFAULT = "default"
_NOT_INHERITED = ("depends_on", "links", "external_links", "volumes_from")


class Services:
    """A merged file, its services checked and in the order of their start.

    Args:
        data: the merged files.
        project: the project's name.
        profiles: active profiles; ``*`` is every one.
        where: the files' names, for errors.
        folder: where ``extends`` looks for files.
        env, unset: as in :func:`interpolate`.
    """

    def __init__(
        self, data: dict[str, Any], project: str, profiles: set[str], where: str, folder: Path, env: Mapping[str, str],
        unset: list[str],
    ) -> None:
        self.project = project
        self.where = where
        self.folder = folder
        self.env = env
        self.unset = unset
        self.remarks: list[str] = []
        self._all: dict[str, dict[str, Any]] = data.get("services") or {}
        self._declared = keys.mapping(data.get("networks"), data.get("networks") or (), f"{where}: networks")
        services: dict[str, dict[str, Any]] = {}
        for name in self._all:
            service = self._extended(name, ())
            keys.mapping(service, keys.SERVICE, f"{where}: services.{name}")
            wanted = {str(p) for p in keys.listing(service.get("profiles"), f"{where}: services.{name}.profiles")}
            if not wanted or wanted & profiles or "*" in profiles:
                services[name] = service
        self.services = services
        self.order = self._start_order()

    # ------------------------------------------------------------------------------------------------- services

    def _extended(self, name: str, seen: tuple[str, ...]) -> dict[str, Any]:
        """A service with what it extends laid under it."""
        service = self._all[name]
        extends = service.get("extends")
        if extends is None:
            return service
        at = f"{self.where}: services.{name}.extends"
        if isinstance(extends, str):
            extends = {"service": extends}
        extends = keys.mapping(extends, ("file", "service"), at)
        base = str(extends.get("service", ""))
        if "file" in extends:
            file = self.folder / str(extends["file"])
            other = normalise(interpolate(read_yaml(file), self.env, f"{file}: ", self.unset), str(file))
            below = (other.get("services") or {}).get(base)
            if below is None:
                raise TopologyError(f"{at}: {file} has no service {base!r}")
            if "extends" in below:
                raise TopologyError(f"{at}: service {base!r} of {file} extends another one itself: not supported")
        else:
            if base not in self._all:
                raise TopologyError(f"{at}: there is no service {base!r}; there are {', '.join(self._all)}")
            if base in (*seen, name):
                raise TopologyError(f"{at}: a cycle: {' -> '.join((*seen, name, base))}")
            below = self._extended(base, (*seen, name))
        below = {key: value for key, value in strip(below).items() if key not in _NOT_INHERITED}
        merged: dict[str, Any] = merge(below, {key: value for key, value in service.items() if key != "extends"})
        return merged

    def _needs(self, name: str) -> Iterator[tuple[str, str, bool]]:
        """(service that must run first, path of the key that says so, whether it must exist)."""
        service, at = self.services[name], f"services.{name}"
        for other, how in keys.mapping(
            service.get("depends_on"), service.get("depends_on") or (), f"{self.where}: {at}.depends_on"
        ).items():
            required = keys.boolean(
                how.get("required") if isinstance(how, dict) else None, f"{self.where}: {at}.depends_on.{other}", True)
            yield other, f"{at}.depends_on", required
        for link in keys.listing(service.get("links"), f"{self.where}: {at}.links"):
            yield str(link).partition(":")[0], f"{at}.links", True
        kind, _, other = str(service.get("network_mode", "")).partition(":")
        if kind == "service":
            yield other, f"{at}.network_mode", True

    def _start_order(self) -> list[str]:
        order: list[str] = []

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                cycle = " -> ".join((*path[path.index(name):], name))
                raise TopologyError(f"{self.where}: services.{path[-1]}: dependencies form a cycle: {cycle}")
            if name in order:
                return
            for other, key, required in self._needs(name):
                if other in self.services:
                    visit(other, (*path, name))
                elif other in self._all and required:
                    raise TopologyError(
                        f"{self.where}: {key}: service {other!r} is of profiles that are not active")
                elif required:
                    raise TopologyError(
                        f"{self.where}: {key}: there is no service {other!r}; there are {', '.join(self.services)}")
            order.append(name)

        for name in self.services:
            visit(name, ())
        return order

    def containers(self) -> tuple[Container, ...]:
        """A container for every replica, in the order of their start."""
        return tuple(container for name in self.order for container in self._containers(name))

    def _names(self, name: str) -> list[str]:
        service, at = self.services[name], f"{self.where}: services.{name}"
        deploy = service.get("deploy")
        replicas = deploy.get("replicas") if isinstance(deploy, dict) else None
        count = keys.integer(service.get("scale"), f"{at}.scale", keys.integer(replicas, f"{at}.deploy.replicas", 1))
        if "container_name" in service:
            if count > 1:
                raise TopologyError(f"{at}.container_name: {count} replicas cannot share one name")
            return [str(service["container_name"])][:count]
        return [f"{self.project}-{name}-{number}" for number in range(1, count + 1)]

    def _containers(self, name: str) -> Iterator[Container]:
        service, at = self.services[name], f"{self.where}: services.{name}"
        mode = self._mode(service, at)
        legacy = mode == "" and "network_mode" in service
        links = tuple(
            f"{target}:{str(link).partition(':')[2] or str(link)}"
            for link in keys.listing(service.get("links"), f"{at}.links") if legacy
            for target in self._names(str(link).partition(":")[0])[:1])
        for container in self._names(name):
            yield Container(
                container, () if mode or legacy else tuple(self._endpoints(name)), mode,
                tuple(self._ports(service, at)), links, tuple(self._exposed(service, at)),
                extra_hosts=tuple(self._extra_hosts(service, at)), service=name)

    def _mode(self, service: dict[str, Any], at: str) -> str:
        if "network_mode" not in service:
            return ""
        mode = str(service["network_mode"])
        if service.get("networks"):
            raise TopologyError(f"{at}: network_mode and networks exclude each other")
        kind, _, other = mode.partition(":")
        if kind == "service" and other:
            names = self._names(other)
            if not names:
                raise TopologyError(f"{at}.network_mode: service {other!r} has no replica whose stack could be shared")
            return f"container:{names[0]}"
        if mode in ("bridge", "default"):
            return ""
        if mode in ("host", "none") or (kind == "container" and other):
            return mode
        raise TopologyError(f"{at}.network_mode: {mode!r} should be bridge, host, none, service:NAME or container:NAME")

    # ------------------------------------------------------------------------------------------------- networks

    def _uses(self, name: str) -> dict[str, Any]:
        """The networks of a service by their names in the file."""
        service, at = self.services[name], f"{self.where}: services.{name}.networks"
        if "network_mode" in service:
            return {}
        used = keys.mapping(service.get("networks"), service.get("networks") or (), at)
        for network in used:
            if network not in self._declared and network != _DEFAULT:
                raise TopologyError(
                    f"{at}: there is no network {network!r}; declared are {', '.join(self._declared) or 'none'}")
        return used or {_DEFAULT: None}

    def _endpoints(self, name: str) -> Iterator[Endpoint]:
        at = f"{self.where}: services.{name}.networks"
        found: list[tuple[int, str, Endpoint]] = []
        for network, options in self._uses(name).items():
            options = keys.mapping(options, keys.ENDPOINT, f"{at}.{network}")
            priority = keys.integer(options.get("priority"), f"{at}.{network}.priority")
            gateway = keys.integer(options.get("gw_priority"), f"{at}.{network}.gw_priority")
            address = options.get("ipv4_address")
            found.append((-priority, network, Endpoint(
                self._network_name(network), str(address) if address is not None else None, gateway)))
        yield from (endpoint for _, _, endpoint in sorted(found, key=lambda item: item[:2]))

    def _network_name(self, key: str) -> str:
        declared = self._declared.get(key) or {}
        external = declared.get("external")
        if isinstance(external, dict) and "name" in external:
            return str(external["name"])
        if "name" in declared:
            return str(declared["name"])
        return key if external else f"{self.project}_{key}"

    def networks(self) -> tuple[Network, ...]:
        """The networks that services use."""
        used = {network for name in self.services for network in self._uses(name)}
        names = [_DEFAULT] if _DEFAULT in used and _DEFAULT not in self._declared else []
        names += [name for name in self._declared if name in used]
        return tuple(self._network(name) for name in names)

    def _network(self, key: str) -> Network:
        at = f"{self.where}: networks.{key}"
        declared = keys.mapping(self._declared.get(key), keys.NETWORK, at)
        name = self._network_name(key)
        if declared.get("external"):
            self.remarks.append(
                f"{at}: is external: it is taken for a network with default settings; give the real one if it differs")
            return Network(name)
        driver = str(declared.get("driver") or "bridge")
        options = declared.get("driver_opts")
        fields = network_options(keys.mapping(options, options or (), f"{at}.driver_opts"), f"{at}.driver_opts")
        if not keys.boolean(declared.get("enable_ipv4"), f"{at}.enable_ipv4", True):
            raise TopologyError(f"{at}.enable_ipv4: networks without IPv4 are not supported")
        ipam = keys.mapping(declared.get("ipam"), keys.IPAM, f"{at}.ipam")
        for number, config in enumerate(keys.listing(ipam.get("config"), f"{at}.ipam.config")):
            place = f"{at}.ipam.config[{number}]"
            config = keys.mapping(config, keys.IPAM_CONFIG, place)
            if ":" in str(config.get("subnet", "")):
                continue
            if "subnet" in fields:
                raise TopologyError(f"{place}.subnet: a second IPv4 subnet is not supported")
            auxiliary = keys.mapping(config.get("aux_addresses"), config.get("aux_addresses") or (), place)
            fields |= {
                "subnet": config.get("subnet"), "gateway": config.get("gateway"), "ip_range": config.get("ip_range"),
                "reserved": tuple(str(address) for address in auxiliary.values())}
        return Network(
            name, driver, internal=keys.boolean(declared.get("internal"), f"{at}.internal"), **fields)

    def path_of(self, subject: Subject) -> str:
        """The path of what an error is about, with a colon and a blank behind it; empty where it is not of the file."""
        if subject.kind == "network":
            key = next((key for key in self._declared if self._network_name(key) == subject.name), None)
            if key is None:
                return ""
            if subject.field in ("subnet", "gateway", "ip_range"):
                configs = ((self._declared[key] or {}).get("ipam") or {}).get("config") or ()
                first = next((n for n, c in enumerate(configs) if ":" not in str(c.get("subnet", ""))), 0)
                return f"networks.{key}.ipam.config[{first}].{subject.field}: "
            inside = {"driver": ".driver", "bridge": ".driver_opts"}.get(subject.field, "")
            return f"networks.{key}{inside}: "
        name = next((name for name in self.services if subject.name in self._names(name)), None)
        if name is None:
            return ""
        service, at = self.services[name], f"services.{name}"
        if subject.field == "ports":
            for number, item in enumerate(service.get("ports") or ()):
                if subject.value in self._port(item, at):
                    return f"{at}.ports[{number}]: "
        if subject.field == "networks" and "networks" in service:
            keys_ = [key for key in self._uses(name) if self._network_name(key) == subject.value]
            return f"{at}.networks{f'.{keys_[0]}' if keys_ else ''}: "
        inside = {"mode": ".network_mode", "links": ".links"}.get(subject.field, "")
        return f"{at}{inside}: "

    # ------------------------------------------------------------------------------------------------- ports

    def _ports(self, service: dict[str, Any], at: str) -> Iterator[Port]:
        seen: set[Port] = set()
        for number, item in enumerate(keys.listing(service.get("ports"), f"{at}.ports")):
            for port in self._port(item, f"{at}.ports[{number}]"):
                if port not in seen:
                    seen.add(port)
                    yield port

    def _port(self, item: Any, where: str) -> tuple[Port, ...]:
        if isinstance(item, dict):
            item = keys.mapping(item, keys.PORT, where)
            if "target" not in item:
                raise TopologyError(f"{where}: target is missing: the container's port")
            published = item.get("published")
            host_ip = item.get("host_ip")
            return expand(
                str(item["target"]), "" if published is None else str(published), str(item.get("protocol") or "tcp"),
                str(host_ip) if host_ip else None, where)
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise TopologyError(f"{where}: {item!r} should be a text such as \"8080:80\"")
        return parse_short(str(item), where)

    def _exposed(self, service: dict[str, Any], at: str) -> Iterator[tuple[int, str]]:
        for number, item in enumerate(keys.listing(service.get("expose"), f"{at}.expose")):
            ports, _, protocol = str(item).partition("/")
            where = f"{at}.expose[{number}]"
            if (protocol or "tcp") not in PROTOCOLS:
                raise TopologyError(f"{where}: protocol {protocol!r} should be one of {', '.join(PROTOCOLS)}")
            first, last = port_range(ports, where)
            yield from ((port, protocol or "tcp") for port in range(first, last + 1))

    def _extra_hosts(self, service: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
        for number, item in enumerate(keys.listing(service.get("extra_hosts"), f"{at}.extra_hosts")):
            text = str(item)
            name, separator, address = text.partition("=" if "=" in text else ":")
            if not separator or not name or not address:
                raise TopologyError(f"{at}.extra_hosts[{number}]: {text!r} should be NAME=ADDRESS or NAME:ADDRESS")
            yield name, address
