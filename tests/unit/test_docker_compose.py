"""Compose files: interpolation, ports, networks, merging, order, and errors that say where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.docker import Container, Endpoint, Port, Topology, TopologyError
from fastpath.docker.compose.interpolate import expand

ENV = {"A": "one", "EMPTY": "", "B": "two"}


def compose(tmp_path: Path, text: str, *more: str, name: str = "compose.yaml", **options: object) -> Topology:
    folder = tmp_path / "shop"
    folder.mkdir(exist_ok=True)
    files = []
    for number, part in enumerate((text, *more)):
        file = folder / (name if number == 0 else f"over{number}.yaml")
        file.write_text(part, encoding="utf-8")
        files.append(file)
    options.setdefault("env", {})
    return Topology.from_compose(files, **options)  # type: ignore[arg-type]


def only(topology: Topology) -> Container:
    (container,) = topology.containers
    return container


# ------------------------------------------------------------------------------------------------ interpolation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "one"), ("${A}", "one"), ("x${A}y$B", "xoneytwo"), ("$$A", "$A"), ("$${A}", "${A}"), ("$A$$", "one$"),
        ("${A:-x}", "one"), ("${EMPTY:-x}", "x"), ("${EMPTY-x}", ""), ("${NONE:-x}", "x"), ("${NONE-x}", "x"),
        ("${A:+x}", "x"), ("${EMPTY:+x}", ""), ("${EMPTY+x}", "x"), ("${NONE:+x}", ""), ("${NONE+x}", ""),
        ("${A:?gone}", "one"), ("${EMPTY?gone}", ""), ("${NONE:-${A}}", "one"), ("${NONE:-${NONE2:-deep}}", "deep"),
        ("${NONE:-a:b}", "a:b"), ("${NONE:-$$x}", "$x"), ("${A:-${NONE:?never asked}}", "one"), ("${NONE:-}", ""),
        ("$NONE.", "."), ("${NONE:-{}}", "{}"),
    ],
)
def test_interpolation(text: str, expected: str) -> None:
    # A lone '{' inside a default is text, and its '}' is the end of the variable: what follows is text again.
    assert expand(text, ENV, "here", []) == expected


def test_unset_variables_are_reported_once_asked() -> None:
    unset: list[str] = []
    assert expand("$NONE ${NONE:-x} ${EMPTY}", ENV, "here", unset) == " x "
    assert unset == ["NONE"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("${A", "not closed"), ("${}", "variable's name"), ("${1A}", "variable's name"), ("$ x", "written"),
     ("${A!x}", ":- - :[?]"), ("${EMPTY:?must be set}", "EMPTY is required: must be set"),
     ("${NONE?}", "it is not set"),
     ("${NONE:?${B} it}", "two it")],
)
def test_bad_interpolation_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        expand(text, ENV, "here", [])


def test_variables_come_from_the_env_file_and_are_overridden_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    lines = "# ports\nPORT=81\nexport TLS='82' \nREST=83 # not this\n"
    (tmp_path / "shop" / ".env").write_text(lines, encoding="utf-8")
    text = 'services: {web: {ports: ["${PORT}:80", "${TLS}:443", "${REST}:90"]}}'
    assert [p.host_port for p in only(compose(tmp_path, text)).ports] == [81, 82, 83]
    assert [p.host_port for p in only(compose(tmp_path, text, env={"PORT": "99"})).ports] == [99, 82, 83]


# ------------------------------------------------------------------------------------------------ ports


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("3000", (Port(3000),)),
        ("3000-3001", (Port(3000), Port(3001))),
        ("8000:80", (Port(80, host_port=8000),)),
        ("9090-9091:8080-8081", (Port(8080, host_port=9090), Port(8081, host_port=9091))),
        ("8000-8009:80", (Port(80, host_port=8000, host_port_last=8009),)),
        ("127.0.0.1:8001:80/udp", (Port(80, "udp", 8001, host_ip="127.0.0.1"),)),
        ("127.0.0.1::5000", (Port(5000, host_ip="127.0.0.1"),)),
        ("[::1]:80:81/sctp", (Port(81, "sctp", 80, host_ip="::1"),)),
    ],
)
def test_short_ports(short: str, expected: tuple[Port, ...]) -> None:
    assert Port.parse(short) == expected


@pytest.mark.parametrize(
    ("short", "message"),
    [("80:a", "not a port"), ("0:80", "1 to 65535"), ("90-80:80", "lower port first"),
     ("1-3:1-2", "3 host ports for 2"), ("80/icmp", "tcp, udp, sctp"), ("1.2.3:80:80", "not an IP address"),
     ("65536", "1 to 65535"), ("", "not a port")],
)
def test_bad_short_ports(short: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        Port.parse(short)


def test_ports_of_a_file_in_both_forms(tmp_path: Path) -> None:
    found = only(compose(tmp_path, """
        services:
          web:
            ports:
              - 22:22
              - 9000
              - {target: 443, published: "8443", host_ip: 127.0.0.1, protocol: tcp, mode: host}
              - {target: 53, protocol: udp}
        """))
    assert found.ports == (
        Port(22, host_port=22), Port(9000), Port(443, host_port=8443, host_ip="127.0.0.1"), Port(53, "udp"))


def test_ephemeral_ports_and_ranges_are_chosen_one_by_one(tmp_path: Path) -> None:
    topology = compose(tmp_path, 'services: {web: {ports: ["80", "8000-8001:90"], scale: 2}}')
    found = sorted((x.container, x.port) for x in topology.listeners("28"))
    assert found == [("shop-web-1", 8000), ("shop-web-1", 32768), ("shop-web-2", 8001), ("shop-web-2", 32769)]


# ------------------------------------------------------------------------------------------------ networks, services


def test_names_networks_and_addresses(tmp_path: Path) -> None:
    topology = compose(tmp_path, """
        services:
          web: {networks: {back: {ipv4_address: 10.5.0.9}, front: {gw_priority: 7}, named: {priority: 9}}}
          plain: {}
        networks:
          front:
            driver_opts: {com.docker.network.bridge.name: br-front, com.docker.network.bridge.enable_icc: "false"}
          back: {internal: true, ipam: {config: [{subnet: 10.5.0.0/24, gateway: 10.5.0.254, ip_range: 10.5.0.0/25}]}}
          named: {name: corp}
          unused: {}
        """)
    assert [n.name for n in topology.networks] == ["shop_default", "shop_front", "shop_back", "corp"]
    front, back = topology.network("shop_front"), topology.network("shop_back")
    assert front is not None and (front.bridge, front.icc) == ("br-front", False)
    assert back is not None and (back.internal, back.subnet, back.gateway, back.ip_range) == (
        True, "10.5.0.0/24", "10.5.0.254", "10.5.0.0/25")
    web, plain = topology.containers
    assert web.name == "shop-web-1" and web.service == "web"
    assert web.networks == (Endpoint("corp"), Endpoint("shop_back", "10.5.0.9"), Endpoint("shop_front", priority=7))
    assert plain.networks == (Endpoint("shop_default"),)
    found = topology.host("28").interface("br-front")
    assert found is not None


def test_containers_start_in_the_order_of_their_needs(tmp_path: Path) -> None:
    topology = compose(tmp_path, """
        services:
          web: {depends_on: [api]}
          side: {network_mode: "service:web"}
          api: {depends_on: {db: {condition: service_healthy}, absent: {condition: service_started, required: false}}}
          db: {container_name: base, links: [cache]}
          cache: {deploy: {replicas: 2}}
        """)
    assert [c.name for c in topology.containers] == [
        "shop-cache-1", "shop-cache-2", "base", "shop-api-1", "shop-web-1", "shop-side-1"]
    assert topology.containers[-1].mode == "container:shop-web-1"


def test_profiles(tmp_path: Path) -> None:
    text = "services: {a: {}, b: {profiles: [dev]}, c: {profiles: [test, dev]}}"

    def services(**options: object) -> list[str]:
        return [c.service for c in compose(tmp_path, text, **options).containers]

    assert services() == ["a"]
    assert services(profiles=["test"]) == ["a", "c"]
    assert services(profiles=["*"]) == ["a", "b", "c"]
    assert services(env={"COMPOSE_PROFILES": "dev"}) == ["a", "b", "c"]


def test_extra_hosts_modes_and_expose(tmp_path: Path) -> None:
    topology = compose(tmp_path, """
        services:
          a: {extra_hosts: ["test.com:192.168.1.100", "six=::1"], expose: [3000, "8000-8001/udp"]}
          b: {extra_hosts: {host.docker.internal: host-gateway}, network_mode: host, ports: ["80:80"]}
          c: {network_mode: none}
          d: {network_mode: bridge}
        """)
    a, b, c, d = topology.containers
    assert a.extra_hosts == (("test.com", "192.168.1.100"), ("six", "::1"))
    assert a.exposed == ((3000, "tcp"), (8000, "udp"), (8001, "udp"))
    assert b.extra_hosts == (("host.docker.internal", "host-gateway"),)
    assert (b.mode, c.mode, d.mode, d.networks) == ("host", "none", "", ())
    assert any("shop-b-1" in note and "host's stack" in note for note in topology.notes("28"))


def test_later_files_are_laid_over_earlier_ones(tmp_path: Path) -> None:
    topology = compose(
        tmp_path,
        """
        services:
          web: {ports: ["80:80"], networks: [front], container_name: one, expose: [1]}
          old: {ports: ["70:70"]}
          api: {ports: ["90:90"]}
        networks: {front: {internal: true}}
        """,
        """
        services:
          web: {ports: ["80:80", "81:81"], networks: {back: {}}, container_name: two, expose: [2]}
          old: !reset null
          api: {ports: !override ["91:91"]}
        networks: {front: {driver_opts: {com.docker.network.bridge.name: brf}}, back: {}}
        """)
    web, api = topology.containers
    assert web.name == "two" and [p.host_port for p in web.ports] == [80, 81]
    assert [e.network for e in web.networks] == ["shop_back", "shop_front"]
    assert web.exposed == ((1, "tcp"), (2, "tcp"))
    assert [p.host_port for p in api.ports] == [91]
    front = topology.network("shop_front")
    assert front is not None and front.internal and front.bridge == "brf"


def test_extends_and_merge_keys(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "base.yaml").write_text('services: {b: {ports: ["1:1"], depends_on: [x]}}', encoding="utf-8")
    topology = compose(tmp_path, """
        x-ports: &ports {expose: [5]}
        services:
          a: {extends: {service: base}, ports: ["2:2"]}
          base: {<<: *ports, profiles: [never], network_mode: host}
          c: {extends: {file: base.yaml, service: b}}
        """, profiles=["never"])
    a, base, c = topology.containers
    assert (a.mode, a.exposed, [p.host_port for p in a.ports]) == ("host", ((5, "tcp"),), [2])
    assert [p.host_port for p in c.ports] == [1]
    assert base.service == "base"


def test_the_project_name(tmp_path: Path) -> None:
    text = "services: {a: {}}"
    assert only(compose(tmp_path, text)).name == "shop-a-1"
    assert only(compose(tmp_path, "name: other\n" + text)).name == "other-a-1"
    assert only(compose(tmp_path, text, env={"COMPOSE_PROJECT_NAME": "env"})).name == "env-a-1"
    assert only(compose(tmp_path, text, project="mine", env={"COMPOSE_PROJECT_NAME": "env"})).name == "mine-a-1"


def test_texts_stay_texts(tmp_path: Path) -> None:
    container = only(compose(tmp_path, "services: {on: {container_name: 0x1F, ports: [80:81]}}"))
    assert container.service == "on" and container.name == "31"
    assert container.ports == (Port(81, host_port=80),)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {web: {port: ['80']}}", r"compose.yaml: services.web: unknown key 'port'; did you mean 'ports'"),
        ("service: {}", r"compose.yaml: unknown key 'service'; did you mean 'services'"),
        ("services: {web: {ports: ['80:x']}}", r"services.web.ports\[0\]: port '80:x': 'x' is not a port"),
        ("services: {web: {ports: 80}}", r"services.web.ports: 80 should be a list"),
        ("services: {web: {ports: [{published: 80}]}}", r"services.web.ports\[0\]: target is missing"),
        ("services: {web: {networks: [x]}}", r"services.web.networks: there is no network 'x'"),
        ("services: {web: {depends_on: [x]}}", r"services.web.depends_on: there is no service 'x'"),
        ("services: {a: {depends_on: [b]}, b: {depends_on: [a]}}", r"cycle: a -> b -> a"),
        ("services: {a: {extends: b}, b: {extends: a}}", r"services.\w.extends: a cycle"),
        ("services: {a: {depends_on: [b]}, b: {profiles: [x]}}", r"'b' is of profiles that are not active"),
        ("services: {a: {network_mode: host, networks: [x]}}", r"services.a: network_mode and networks exclude"),
        ("services: {a: {network_mode: weird}}", r"services.a.network_mode: 'weird' should be"),
        ("services: {a: {ports: ['${P:?set P}:80']}}", r"compose.yaml: services.a.ports\[0\]: .*P is required: set P"),
        ("services: {a: {ports: ['80:80']}, b: {ports: ['80:81']}}", r"port 80/tcp on 0.0.0.0 is taken by 'shop-a-1'"),
        ("services: {a: {extra_hosts: [x]}}", r"services.a.extra_hosts\[0\]: 'x' should be NAME"),
        ("services: [a]", r"services: \['a'\] should be a mapping"),
        ("services: {a: {}}\nservices: {}", r"compose.yaml:2:1: key 'services' is there twice"),
        ("services: {a: {]}", r"compose.yaml:1:"),
        ("include: [x.yaml]", r"include: is not supported"),
        ("services: {a: {networks: [n]}}\nnetworks: {n: {driver: cilium}}", r"driver 'cilium' should be one of"),
        ("services: {a: {networks: [n]}}\nnetworks: {n: {internal: maybe}}", r"networks.n.internal: 'maybe' should be"),
        ("services: {a: {networks: [n, m]}}\nnetworks: {n: {ipam: {config: [{subnet: 10.1.0.0/16}]}}, "
         "m: {ipam: {config: [{subnet: 10.1.2.0/24}]}}}", r"10.1.2.0/24 overlaps 10.1.0.0/16 of network 'shop_n'"),
        ("services: {a: {networks: {n: {ipv4_address: 10.9.0.1}}}}\nnetworks: {n: {ipam: {config: "
         "[{subnet: 10.1.0.0/16}]}}}", r"address 10.9.0.1 is outside network 'shop_n'"),
        ("services: {a: {scale: 2, container_name: x}}", r"services.a.container_name: 2 replicas"),
        ("name: Shop\nservices: {a: {}}", r"project name 'Shop'"),
    ],
)
def test_errors_name_the_file_the_path_and_the_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TopologyError, match=message) as caught:
        compose(tmp_path, text)
    assert "compose.yaml" in str(caught.value)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="nowhere.yaml"):
        Topology.from_compose(tmp_path / "nowhere.yaml")


# ------------------------------------------------------------------------------------------------ examples

EXAMPLES = Path(__file__).resolve().parents[2] / "data" / "docker"


def test_the_example_with_extra_hosts_reads() -> None:
    topology = Topology.from_compose(EXAMPLES / "extra-hosts.yaml", {})
    container = only(topology)
    assert container.extra_hosts == (("test.com", "192.168.1.100"),)
    assert [(x.port, x.container_port) for x in topology.listeners("28")] == [(8080, 8080)]


def test_the_example_shop_reads() -> None:
    topology = Topology.from_compose(EXAMPLES / "shop.yaml", {"HTTP_PORT": "8080"}, profiles=["debug"])
    assert [c.name for c in topology.containers] == [
        "shop-db-1", "shop-web-1", "shop-web-2", "shop-proxy-1", "shop-redis-1", "shop-debug-1"]
    assert sorted((x.address, x.port) for x in topology.listeners("28")) == [
        ("0.0.0.0", 443), ("0.0.0.0", 8080), ("127.0.0.1", 6380)]
    for engine in ("1.10", "20.10", "28.0.0", "29"):
        assert topology.host(engine).ruleset.table("nat") is not None


@pytest.mark.parametrize(("text", "message"), [
    ("services: {a: {image: a, networks: [x, y]}}\n"
     "networks: {x: {ipam: {config: [{subnet: 172.30.0.0/16}]}}, y: {ipam: {config: [{subnet: 172.30.5.0/24}]}}}",
     "networks.y.ipam.config[0].subnet: network 'shop_y': subnet 172.30.5.0/24 overlaps 172.30.0.0/16"),
    ("services: {a: {image: a, ports: ['9:9', '8080:80']}, b: {image: a, ports: ['8000-8001:1-2', '8080:81']}}",
     "services.b.ports[1]: container 'shop-b-1': host port 8080/tcp on 0.0.0.0 is taken by 'shop-a-1'"),
    ("services: {a: {image: a, networks: {x: {ipv4_address: 10.0.0.5}}}}\n"
     "networks: {x: {ipam: {config: [{subnet: 172.30.0.0/16}]}}}",
     "services.a.networks.x: container 'shop-a-1': address 10.0.0.5 is outside network 'shop_x'"),
    ("services: {a: {image: a, networks: [x]}}\nnetworks: {x: {ipam: {config: [{subnet: 'fd00::/64'}, "
     "{subnet: 172.30.0.1/16}]}}}",
     "networks.x.ipam.config[1].subnet: network 'shop_x': '172.30.0.1/16' is not an IPv4 subnet"),
    ("services: {a: {image: a, networks: [x]}}\nnetworks: {x: {driver: weird}}",
     "networks.x.driver: network 'shop_x': driver 'weird' should be one of bridge"),
    ("services: {a: {image: a, network_mode: 'container:zzz'}}",
     "services.a.network_mode: container 'shop-a-1': mode 'container:zzz' names an unknown container"),
    ("services: {a: {image: a, networks: [x]}}\n"
     "networks: {x: {driver_opts: {com.docker.network.bridge.name: averyveryverylongname}}}",
     "networks.x.driver_opts: network 'shop_x': bridge name 'averyveryverylongname' is longer"),
])
def test_what_docker_would_refuse_names_file_path_and_value(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(text)
    with pytest.raises(TopologyError) as error:
        Topology.from_compose(file, {}, project="shop")
    assert str(error.value).startswith(f"{file}: {message}")
