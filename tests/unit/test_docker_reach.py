"""The matrix of who reaches what: every kind of network, container and port, each cell with its reason."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fastpath as fp
from fastpath.cli.docker import app
from fastpath.docker import Container, Daemon, Endpoint, Network, Port, Swarm, Topology
from fastpath.docker.reach import compare_topologies
from fastpath.errors import FastpathError
from tests.topologies import ENGINES, drawn
from tests.unit.test_docker_flows import TOPOLOGY

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "data" / "docker" / "shop.yaml"
MATRIX = {engine: TOPOLOGY.reachability(engine) for engine in ("20.10", "27", "29")}


@pytest.mark.parametrize(("engine", "source", "target", "mark", "reason"), [
    # published ports
    ("29", "external", "host:8080", "nat", "translated to 172.18.0.2:80; let through by filter DOCKER rule"),
    ("29", "external", "web:80", "-", "dropped in PREROUTING by raw PREROUTING rule 1"),
    ("27", "external", "web:80", "yes", "let through by filter DOCKER rule 2: -A DOCKER -d 172.18.0.2/32"),
    ("27", "external", "web:*", "-", "dropped in FORWARD by filter FORWARD policy"),
    ("27", "external", "db:5432", "-", "dropped in FORWARD by filter FORWARD policy"),
    ("29", "external", "localhost:8080", "-", "127.0.0.1 is the loopback address of external itself"),
    # the userland proxy: who answers on 127.0.0.1 and on the host's own address
    ("29", "host", "localhost:8080", "proxy", "docker-proxy answers on 0.0.0.0:8080 and connects to 172.18.0.2:80"),
    ("29", "host", "localhost:5353/udp", "proxy", "answers on 127.0.0.1:5353 and connects to 172.18.0.2:53"),
    ("29", "host", "host:8080", "nat", "translated to 172.18.0.2:80; let through by filter OUTPUT policy"),
    ("29", "agent", "localhost:8080", "proxy", "docker-proxy answers"),
    # hairpin: through the proxy where the packet comes from the port's own bridge
    ("29", "web", "host:8080", "proxy", "docker-proxy answers on 0.0.0.0:8080"),
    ("29", "api", "host:8080", "nat", "translated to 172.18.0.2:80 with source 172.18.0.1"),
    ("27", "api", "host:8080", "proxy", "docker-proxy answers on 0.0.0.0:8080"),
    # networks
    ("29", "api", "db:5432", "yes", "let through by filter DOCKER-FORWARD rule"),
    ("29", "web", "db:5432", "-", "dropped in PREROUTING by raw PREROUTING rule"),
    ("27", "web", "db:5432", "-", "dropped in FORWARD by filter DOCKER-ISOLATION-STAGE-2 rule"),
    ("29", "safe", "db:5432", "yes", "let through by filter DOCKER-FORWARD rule"),
    ("29", "safe", "host:8080", "-", "safe has no default route: it is on internal networks only"),
    # shared stacks
    ("29", "side", "web:80", "yes", "both are one network stack"),
    ("29", "web", "side:*", "yes", "both are one network stack"),
    ("29", "external", "agent:9100", "yes", "delivered to the host, whose stack agent uses"),
    ("29", "web", "agent:9100", "yes", "delivered to the host, whose stack agent uses"),
    ("29", "external", "alone:*", "-", "alone has no network (mode none)"),
    ("29", "alone", "host:8080", "-", "alone has no network (mode none)"),
    # macvlan: beside the host
    ("29", "host", "plain:*", "-", "macvlan: the parent interface carries nothing between the host"),
    ("29", "web", "plain:*", "-", "macvlan"),
    ("29", "plain", "host:8080", "-", "macvlan"),
    ("29", "external", "plain:*", "yes", "the container is on the parent's link itself (macvlan)"),
    # the host
    ("29", "web", "host:*", "yes", "delivered to the host, let through by filter INPUT policy"),
])
def test_cells(engine: str, source: str, target: str, mark: str, reason: str) -> None:
    cell = MATRIX[engine].cell(source, target)
    assert (cell.mark, cell.reach) == (mark, mark != "-"), cell
    assert reason in cell.reason, cell.reason


def test_without_the_proxy_rules_lead_everywhere_and_dockerd_only_holds_the_port() -> None:
    topology = replace(TOPOLOGY, daemon=Daemon(userland_proxy=False))
    matrix = topology.reachability("28.5")
    for source, target in (("host", "localhost:8080"), ("web", "host:8080"), ("side", "host:8080")):
        assert matrix.cell(source, target).mark == "nat", (source, target)
    assert "by filter DOCKER-ISOLATION-STAGE-2" in matrix.cell("api", "host:8080").reason
    assert topology.reachability("29").cell("api", "host:8080").mark == "nat"
    assert "with source 172.18.0.1" in matrix.cell("host", "localhost:8080").reason
    closed = matrix.host.edit("-t nat -F OUTPUT")
    cell = topology.reachability("28.5", host=closed).cell("host", "localhost:8080")
    assert not cell.reach and "dockerd holds port 8080 without answering" in cell.reason


def test_iptables_false_leaves_the_proxy_alone() -> None:
    matrix = replace(TOPOLOGY, daemon=Daemon(iptables=False)).reachability("28.5")
    assert matrix.cell("external", "host:8080").mark == "proxy"
    assert matrix.cell("external", "web:*").reach, "no rule is in the way of who routes to the container"
    neither = replace(TOPOLOGY, daemon=Daemon(iptables=False, userland_proxy=False)).reachability("28.5")
    assert "without answering" in neither.cell("external", "host:8080").reason


def test_a_proxy_whose_own_connection_is_stopped() -> None:
    host = TOPOLOGY.host("29").edit("-A OUTPUT -o br-front -j REJECT")
    cell = TOPOLOGY.reachability("29", host=host).cell("host", "localhost:8080")
    assert not cell.reach
    assert "but its own connection to 172.18.0.2:80 fails: the first packet is rejected in OUTPUT" in cell.reason


def test_an_unpublished_neighbour_of_a_published_address() -> None:
    topology = Topology((), (Container("web", ports=Port.parse("192.0.2.15:80:80")),), machine=TOPOLOGY.machine)
    matrix = topology.reachability("29")
    assert [t.name for t in matrix.targets] == ["web:80", "web:*", "192.0.2.15:80", "host:*"]
    assert matrix.cell("external", "192.0.2.15:80").mark == "nat"


def test_icc_false_and_links() -> None:
    topology = Topology((), (
        Container("db", exposed=((5432, "tcp"), (9999, "tcp"))), Container("web", links=("db:db",)),
        Container("other")), Daemon(icc=False))
    for engine in ENGINES:
        matrix = topology.reachability(engine)
        assert matrix.cell("web", "db:5432").reach and matrix.cell("web", "db:9999").reach, engine
        assert not matrix.cell("web", "db:*").reach and not matrix.cell("other", "db:5432").reach, engine
        assert not matrix.cell("db", "web:*").reach, engine


def test_bridged_traffic_that_no_rule_sees() -> None:
    machine = replace(TOPOLOGY.machine, sysctls=(("net.bridge.bridge-nf-call-iptables", "0"),))
    topology = Topology((Network("n", icc=False, bridge="br-n"),), (
        Container("a", (Endpoint("n"),)), Container("b", (Endpoint("n"),))), machine=machine)
    cell = topology.reachability("29").cell("a", "b:*")
    assert cell.reach and "bridge-nf-call-iptables is 0" in cell.reason
    assert not replace(topology, machine=TOPOLOGY.machine).reachability("29").cell("a", "b:*").reach


def test_swarm_ingress_and_overlay() -> None:
    topology = Topology(
        (Network("mesh", "overlay", "10.0.5.0/24"),),
        (Container("a", (Endpoint("mesh"),)), Container("b", (Endpoint("mesh"),)), Container("c")),
        Daemon(swarm=Swarm((Port(80, host_port=7000),))))
    for engine in ("17.06", "20.10", "28.5", "29"):
        matrix = topology.reachability(engine)
        assert matrix.cell("external", "host:7000").mark == "nat", engine
        assert "on network mesh (overlay)" in matrix.cell("a", "b:*").reason
        assert "overlay network mesh is not on the host" in matrix.cell("c", "b:*").reason
        assert not matrix.cell("external", "b:*").reach


@pytest.mark.parametrize("engine", ENGINES)
def test_every_cell_is_its_connection(engine: str) -> None:
    """Cells that rules decide say what evaluating their packet alone says."""
    for seed in (4, 6, 9):
        matrix = drawn(seed).reachability(engine)
        for row in range(len(matrix.sources)):
            for column in range(len(matrix.targets)):
                cell, packet = matrix.cell(row, column), matrix.packet(row, column)
                assert cell.reason and "\n" not in cell.reason
                if packet is None:
                    assert cell.mark in ("yes", "-")
                    continue
                if not row % 3 and not column % 2:
                    works = bool(fp.evaluate_flows(matrix.host, packet, engine=matrix.engines).works[0])
                    assert works or cell.reach is not True, cell
                    assert not works or cell.reach or re.search(
                        "nobody listens|without answering|leads to|fails", cell.reason), cell


def test_text_arrow_and_page(tmp_path: Path) -> None:
    matrix = MATRIX["29"]
    lines = str(matrix).splitlines()
    assert lines[0] == "Docker 29: who (across) reaches what (down)"
    assert lines[1].split() == [s.name for s in matrix.sources]
    assert len(lines) == len(matrix.targets) + 3
    table = matrix.to_arrow()
    assert table.num_rows == matrix.reach.size
    assert sum(table["reach"].to_pylist()) == int((matrix.reach == 1).sum())
    page = matrix.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page
    assert not re.search(r"(src|href)=|https?://|@import|url\(", page), "the page loads nothing"
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["marks"][0][0] == matrix.mark(0, 0)
    assert data["reasons"][data["why"][3][2]] == matrix.reason(3, 2)


def test_the_page_draws_itself(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed")
    matrix = MATRIX["29"]
    matrix.to_html(tmp_path / "page.html")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom",
             f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the browser does not start: {done.stderr[:200]}")
    cells = re.findall(r"<td class=\"(\w)\"", done.stdout)
    assert len(cells) == matrix.reach.size
    assert cells.count("n") == int((matrix.reach == 0).sum())


def test_wrong_names_are_told() -> None:
    with pytest.raises(FastpathError, match=r"no source 'wbe'; there are web, api"):
        MATRIX["29"].cell("wbe", "web:80")
    with pytest.raises(FastpathError, match=r"no target 'web:81'"):
        MATRIX["29"].cell("web", "web:81")
    assert MATRIX["29"].explain("external", "host:8080").count("verdict") == 4


# ------------------------------------------------------------------------------------------------- comparison


def test_from_27_to_29() -> None:
    found = compare_topologies(TOPOLOGY, "27", TOPOLOGY, "29")
    changed = {(c.before.source, c.before.target): (c.before.reach, c.after.reach) for c in found.cells}
    assert changed == {("external", "web:80"): (True, False), ("external", "web:53/udp"): (True, False)}
    assert {(c.before.source, c.before.target) for c in found.ways} == {("api", "host:8080"), ("db", "host:8080")}
    chains = {f"{c.table} {c.chain}" for c in found.chains}
    assert {"filter DOCKER-FORWARD", "filter DOCKER-ISOLATION-STAGE-1", "raw PREROUTING", "nat DOCKER"} <= chains
    isolation = next(c for c in found.chains if c.chain == "DOCKER-ISOLATION-STAGE-2")
    assert (isolation.before, isolation.after) == ("user's chain", "not there") or isolation.after is None
    assert all(line[0] in "-+ " for c in found.chains for line in c.lines)


def test_two_files() -> None:
    more = replace(TOPOLOGY, containers=(*TOPOLOGY.containers, Container("new", (Endpoint("back"),))))
    found = compare_topologies(TOPOLOGY, "29", more, "29")
    assert found.only_after == ("new", "new:*") and not found.cells
    assert not compare_topologies(TOPOLOGY, "29", TOPOLOGY, "29")


# ------------------------------------------------------------------------------------------------- commands


def run(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def test_reach_command(tmp_path: Path) -> None:
    printed = run("reach", "-f", SHOP, "-e", "29", "-s", "external", "-s", "host", "-t", "host:", "-w")
    assert "external -> host:80: nat: translated to 172.19.0.4:80" in printed
    assert "host -> host:443: nat" in printed and "shop-db-1" not in printed
    for name in ("m.html", "m.csv", "m.parquet", "m.arrow"):
        run("reach", "-f", SHOP, "-e", "29", "-o", tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    edited = run("reach", "-f", SHOP, "-e", "29", "-s", "external", "-t", "host:80", "-w", "--edit",
                 "-I DOCKER-USER -i eth0 -j DROP")
    assert "external -> host:80: -: the first packet is dropped in FORWARD by filter DOCKER-USER rule 1" in edited
    with pytest.raises(FastpathError, match="written as"):
        run("reach", "-f", SHOP, "-e", "29", "-o", tmp_path / "m.png")
    assert "no target begins so" in run("reach", "-f", SHOP, "-e", "29", "-t", "nothing", code=2)


def test_compare_command(tmp_path: Path) -> None:
    printed = run("compare", "-f", SHOP, "-e", "27", "-e", "29")
    assert "reachability: 3 cells change" in printed
    assert "external -> shop-redis-1:6379: reached -> not reached" in printed
    other = tmp_path / "other.yaml"
    other.write_text(SHOP.read_text().replace("${HTTPS_PORT:-443}:443", "8443:443"))
    printed = run("compare", "-f", SHOP, "--to", other, "-e", "29")
    assert "only before: host:443, localhost:443" in printed and "only after: host:8443, localhost:8443" in printed
    assert "give --engine twice" in run("compare", "-f", SHOP, "-e", "29", code=2)
