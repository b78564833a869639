"""``fastpath capacity report|conntrack|snat``: what they print, and the page in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastpath.capacity import Profile, cost, gather, names_of
from fastpath.capacity.report.grow import by_networks, by_rules, grown_host, grown_topology
from fastpath.cli import main
from fastpath.docker.files import read_any
from fastpath.host.model import Host

pytestmark = pytest.mark.cli

COMPOSE, TRAFFIC = Path("data/docker/shop.yaml"), Path("data/docker/shop-traffic.yaml")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-component-update", "--disable-background-networking", "--disable-sync",
         "--host-resolver-rules=MAP * ~NOTFOUND")


@pytest.fixture(scope="module")
def report():
    topology = read_any([COMPOSE], env={})
    host, profile = topology.host("28.5"), Profile.load(TRAFFIC)
    packets = profile.on(host, 2000, names=names_of(topology, "28.5"))
    sweep = by_networks(topology, profile, ["27", "28.5"], [0, 3, 6])
    return gather(host, packets, cost=cost(host, packets.packets), sweep=sweep, cores=2,
                  inputs={"Command": "fastpath capacity report", "Traffic profile": profile.text})


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.html(), encoding="utf-8")
    return path


class Page(HTMLParser):
    """What a page would fetch, and whether its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "link"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action") and value:
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.open)


def test_the_answers_come_first_and_the_scarcest_leads(report, page):
    text = page.read_text()
    assert [answer.what for answer in report.answers] == ["connection table", "source ports", "CPU"]
    factors = [answer.factor for answer in report.answers]
    assert factors == sorted(factors)
    at = [text.index(f">{answer.what}<") for answer in report.answers]
    assert at == sorted(at) and at[-1] < text.index("<figure>")


def test_the_page_needs_nothing_beside_it(page):
    found = Page(page.read_text())
    assert all(value.startswith(("data:,", "#")) for value in found.fetched), found.fetched
    assert "script" not in found.tags and "iframe" not in found.tags
    assert not re.search(r"@import|url\((?!#)", page.read_text())
    assert len(found.ids) == len(set(found.ids))


def test_every_chart_is_there_for_light_and_dark_and_as_png(report, page):
    charts = report.charts()
    names = ["headroom", "cost-by-size", "cost-by-chain", "rule-heat", "connections", "bursts", "ports"]
    assert [chart.name for chart in charts] == names
    text = page.read_text()
    assert text.count("<svg") == 2 * len(names)
    assert text.count('class="scroll light"') == text.count('class="scroll dark"') == len(names)
    for chart in charts:
        png = chart.png(scale=1)
        assert png.startswith(b"\x89PNG\r\n\x1a\n") and len(png) > 3000, chart.name
        assert chart.svg() != chart.svg(dark=True)


def test_the_page_has_what_it_takes_to_make_it_again(report, page):
    text = page.read_text()
    for words in ("fastpath capacity report", "distribution: lognormal", "-A DOCKER-FORWARD", "EPYC", "Assumptions"):
        assert words in text


def test_what_a_name_says_is_not_markup(report):
    from dataclasses import replace

    profile = replace(report.traffic.profile, name="<script>alert(1)</script>")
    text = replace(report, traffic=replace(report.traffic, profile=profile)).html()
    assert "<script>" not in text


def browse(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        if os.environ.get("FASTPATH_REQUIRE_BROWSER"):
            pytest.fail("no chromium here")
        pytest.skip("no chromium here to open the page with")
    return subprocess.run(
        [program, *QUIET, f"--user-data-dir={folder}/profile", "--enable-logging=stderr", *options, page.as_uri()],
        capture_output=True, text=True, check=False, timeout=120)


def complaints_and_requests(page: Path, folder: Path) -> tuple[list[str], set[str]]:
    """What the browser's console says of a page, and whom it asks for something."""
    log = folder / "net.json"
    done = browse(page, folder, f"--log-net-log={log}", "--window-size=1000,2000", f"--screenshot={folder}/page.png")
    assert (folder / "page.png").stat().st_size > 1000, done.stderr
    # the browser has errands of its own (which the resolver rule ends early): they have no origin
    urls = {url for origin, url in re.findall(r'"initiator":"([^"]*)".*?"url":"(https?:[^"]+)"', log.read_text())
            if origin != "not an origin"}
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line], urls


def test_a_browser_opens_it_without_a_complaint_or_a_request(page, tmp_path):
    assert complaints_and_requests(page, tmp_path) == ([], set())
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_browser_would_say_so(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text('<!doctype html><script>console.error("oh")</script><img src="http://127.0.0.1:9/x.png">')
    said, asked = complaints_and_requests(bad, tmp_path)
    assert said and "http://127.0.0.1:9/x.png" in asked


def test_what_grows_leaves_the_rest_as_it_is():
    topology = read_any([COMPOSE], env={})
    before, after = topology.host("28.5"), grown_topology(topology, 4).host("28.5")
    assert after.interfaces[:len(before.interfaces)] != () and len(after.interfaces) > len(before.interfaces)
    assert names_of(topology, "28.5").items() <= names_of(grown_topology(topology, 4), "28.5").items()
    host = Host.load("data/hosts/docker28-seed")
    count = sum(1 for ref in host.ruleset.refs() if ref.number)
    assert sum(1 for ref in grown_host(host, 300).ruleset.refs() if ref.number) == count + 300
    grown = by_rules(host, Profile.load("data/docker/office-traffic.yaml"), [0, 100, 200])
    assert [row.engine for row in grown.rows] == ["this host"] * 3
    assert grown.rows[0].mean_ns < grown.rows[1].mean_ns < grown.rows[2].mean_ns


def test_the_command_writes_page_and_charts(tmp_path, capsys):
    words = ["capacity", "report", "--host", "data/hosts/docker28-seed", "--traffic", "data/docker/office-traffic.yaml",
             "-n", "2000", "--no-grow", "--max", "30000", "--out", str(tmp_path / "r.html"), "--png", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "connection table: 0.497 times" in printed and "set nf_conntrack_max and nf_conntrack_buckets to" in printed
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "connections.png", "cost-by-chain.png", "headroom.png", "ports.png", "rule-heat.png"]  # it is full: no bursts
    assert "--max 30000" in (tmp_path / "r.html").read_text()


def test_the_command_prints_json(capsys):
    words = ["capacity", "report", "--compose", str(COMPOSE), "--traffic", str(TRAFFIC), "-n", "2000", "--no-grow",
             "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answers"][0]["what"] == "connection table"
    assert found["conntrack"]["limit"] == 262_144 and found["cost"]["mean_ns"] > 500
    assert {pool["name"] for pool in found["snat"]["pools"]} == {"payment", "name service"}


def test_conntrack_and_snat_take_a_profile(capsys):
    shared = ["--compose", str(COMPOSE), "--traffic", str(TRAFFIC), "--json"]
    assert main(["capacity", "conntrack", *shared, "--flood", "1e5"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert main(["capacity", "snat", *shared]) == 0
    ports = json.loads(capsys.readouterr().out)
    assert 0 < table["bursts"][0]["seconds"] < 3
    assert [pool["destination"] for pool in ports["pools"]] == ["10.0.2.3", "203.0.113.20"]


@pytest.mark.parametrize(("words", "complaint"), [
    (["conntrack"], "give some connections"), (["conntrack", "--rate", "tcp"], "should be like"),
    (["conntrack", "--rate", "http=1"], "no protocol 'http'"),
    (["conntrack", "--rate", "tcp=1", "--timeout", "x"], "NAME"),
    (["conntrack", "--rate", "tcp=1", "--traffic", str(TRAFFIC)], "--rate or --traffic"),
    (["conntrack", "--rate", "tcp=1", "--host", "x"], "goes with"), (["snat"], "give one of them"),
    (["snat", "--rate", "1", "--to-ports", "high"], "5000-5999"), (["snat", "--rate", "1", "--kernel", "new"], "6.12"),
    (["snat", "--rate", "1", "--protocol", "icmp"], "no ports"), (["report", "--traffic", str(TRAFFIC)], "give one of"),
    (["report", "--host", "data/hosts/docker28-seed", "--traffic", str(TRAFFIC)], "classes\\[1\\].from: 'proxy'"),
    (["report", "--host", "data/hosts/docker28-seed", "--traffic", "none.yaml"], "none.yaml: cannot be read"),
])
def test_mistakes_are_one_clear_message(words, complaint, capsys):
    assert main(["capacity", *words]) == 2
    error = capsys.readouterr().err
    assert re.search(complaint, error) and "Traceback" not in error
