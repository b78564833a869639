"""Where the ways of a host are cut into stages, and that every stage may look at values as they are when it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpath.compiler.fields import Condition
from fastpath.compiler.flow import MUTATES, Builder, conntrack_in_use
from fastpath.compiler.program import Act, Effect, Stage
from fastpath.compiler.stages import stages_of_chain, stages_of_host
from fastpath.engine import compile as compile_host
from fastpath.host.model import Host
from fastpath.packets.schema import Hook
from tests.strategies import random_drawn
from tests.unit.reference_host import make_host

DATA = Path(__file__).parents[2] / "data" / "hosts"


def builder_of(host: Host, given_oif: bool = False) -> Builder:
    return Builder(host, {}, given_oif, conntrack_in_use(host))


def stages_by_name(host: Host, given_oif: bool = False) -> dict[str, Stage]:
    return {s.name: s for s in stages_of_host(builder_of(host, given_oif))}


def chains_of(stage: Stage) -> set[str]:
    """``way.HOOK:table`` of every builtin chain that a stage walks."""
    return {op.chain.rpartition(":")[0] for b in stage.blocks.values() for op in b.ops if op.act is Act.CALL}


def bases(condition: Condition) -> set[str]:
    return {f.base for term in condition for f, _ in term.tests}


def changes(effects: tuple[Effect, ...]) -> set[str]:
    return {base for e in effects for base in MUTATES.get(e.code, ())}


def reached(stage: Stage, key: str) -> set[str]:
    """Every block that a chain leads to, itself included."""
    found = {key}
    pending = [key]
    while pending:
        for op in stage.blocks[pending.pop()].ops:
            if op.chain and op.chain not in found:
                found.add(op.chain)
                pending.append(op.chain)
    return found


# ----------------------------------------------------------------------------------------------- where it is cut


def test_a_mark_set_and_tested_in_one_chain_is_walked_linearly() -> None:
    host = make_host(mangle="-A PREROUTING -p tcp -j MARK --set-mark 1\n-A PREROUTING -m mark --mark 1 -j DROP")
    stages = stages_by_name(host)
    (linear,) = [s for s in stages.values() if s.linear and "arriving" in s.name]
    assert chains_of(linear) == {"arriving.PREROUTING:mangle"}
    assert compile_host(host).structures[linear.name] == "linear"


def test_a_mark_set_in_one_chain_and_tested_in_the_next_cuts_between_them() -> None:
    host = make_host(mangle="-A PREROUTING -p tcp -j MARK --set-mark 1", filter="-A FORWARD -m mark --mark 1 -j DROP")
    stages = stages_by_name(host)
    assert not any(s.linear for s in stages.values())
    (marking,) = [s for s in stages.values() if "arriving.PREROUTING:mangle" in chains_of(s)]
    (testing,) = [s for s in stages.values() if "forward.FORWARD:filter" in chains_of(s)]
    assert marking.name == "arriving" and testing.name != "arriving"
    assert set(compile_host(host).structures.values()) == {"diagram"}


def test_a_mark_nobody_tests_cuts_nothing() -> None:
    host = make_host(mangle="-A PREROUTING -p tcp -j MARK --set-mark 1", filter="-A FORWARD -p udp -j DROP")
    (arriving,) = [s for s in stages_by_name(host).values() if s.name.startswith("arriving")]
    assert chains_of(arriving) >= {"arriving.PREROUTING:mangle", "forward.FORWARD:filter", "input.INPUT:filter"}


def test_dnat_is_cut_before_routing() -> None:
    host = make_host(nat="-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2",
                     filter="-A FORWARD -o docker0 -j ACCEPT")
    stages = stages_by_name(host)
    assert chains_of(stages["arriving"]) == {"arriving.PREROUTING:nat"}
    (after,) = [op.end.stage for op in stages["arriving"].blocks["root"].ops if op.end and op.end.stage]
    assert after is not None and chains_of(stages[after]) >= {"forward.FORWARD:filter", "input.INPUT:filter"}


def test_without_dnat_routing_and_filter_are_one_stage() -> None:
    host = make_host(nat="-A POSTROUTING -o eth0 -j MASQUERADE", filter="-A FORWARD -o docker0 -j ACCEPT")
    stages = stages_by_name(host)
    assert [name for name in stages if name.startswith("arriving")] == ["arriving"]
    assert chains_of(stages["arriving"]) >= {"arriving.PREROUTING:nat", "forward.FORWARD:filter",
                                             "forward.POSTROUTING:nat"}


def test_source_nat_at_the_end_cuts_nothing() -> None:
    """Nothing looks at the source behind POSTROUTING, so that a masqueraded packet needs no second look-up."""
    host = make_host(nat="-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
                     filter="-A FORWARD -s 172.17.0.0/16 -j ACCEPT")
    assert [name for name in stages_by_name(host) if name.startswith("arriving")] == ["arriving"]


def test_notrack_is_seen_by_what_asks_for_the_state() -> None:
    host = make_host(raw="-A PREROUTING -p udp -j NOTRACK",
                     filter="-A FORWARD -m conntrack --ctstate UNTRACKED -j DROP")
    stages = stages_by_name(host)
    assert "arriving.PREROUTING:raw" in chains_of(stages["arriving"])
    assert "forward.FORWARD:filter" not in chains_of(stages["arriving"])


def test_docker_28() -> None:
    """A published port costs one stage more than a packet that is merely forwarded; nothing is walked linearly."""
    host = Host.load(DATA / "docker28-seed")
    assert compile_host(host).structures == {
        "arriving": "diagram", "arriving+3": "diagram", "local": "diagram", "local-rules+4": "diagram"}
    stages = stages_by_name(host)
    assert chains_of(stages["arriving"]) == {"arriving.PREROUTING:raw", "arriving.PREROUTING:nat"}
    assert chains_of(stages["arriving+3"]) == {
        "input.INPUT:filter", "input.INPUT:nat", "forward.FORWARD:filter", "forward.POSTROUTING:nat"}
    assert chains_of(stages["local-rules+4"]) >= {"local-rules.OUTPUT:filter", "output.POSTROUTING:nat"}


# ---------------------------------------------------------------------------------------------------- invariants

HOSTS = [pytest.param(seed, given, id=f"{seed}{'-given' if given else ''}")
         for seed in range(40) for given in (False, True) if not given or seed < 10]


@pytest.mark.parametrize(("seed", "given"), HOSTS)
def test_every_stage_comes_after_those_that_lead_to_it(seed: int, given: bool) -> None:
    stages = stages_of_host(builder_of(random_drawn(seed).host(), given))
    place = {s.name: i for i, s in enumerate(stages)}
    assert len(place) == len(stages) and stages[0].name == "arriving" and "local" in place
    onward = {
        s.name: {op.end.stage for b in s.blocks.values() for op in b.ops if op.end and op.end.stage} for s in stages}
    for name, targets in onward.items():
        assert all(place[name] < place[t] for t in targets)
    assert set().union(*onward.values()) | {"arriving", "local"} == set(place)


@pytest.mark.parametrize(("seed", "given"), HOSTS)
def test_no_stage_looks_at_what_it_may_have_changed(seed: int, given: bool) -> None:
    """The invariant on which diagrams rest; a linear stage is free of it, but holds one step only."""
    for stage in stages_of_host(builder_of(random_drawn(seed, size=9).host(), given)):
        if stage.linear:
            calls = [op for op in stage.blocks["root"].ops if op.act is Act.CALL]
            assert len(calls) == 1 and len(chains_of(stage)) == 1
            continue

        def check(key: str, changed: set[str], stage: Stage = stage) -> None:
            for op in stage.blocks[key].ops:
                assert not bases(op.condition) & changed, (stage.name, key)
                if op.act is Act.GOTO:
                    check(op.chain, changed | changes(op.effects))
                    continue
                if op.act is Act.CALL:
                    inside = [o for k in reached(stage, op.chain) for o in stage.blocks[k].ops]
                    tested = set().union(*(bases(o.condition) for o in inside))
                    going_on = set().union(*(changes(o.effects) for o in inside if o.act is not Act.ACCEPT))
                    assert not tested & changed and not tested & going_on, (stage.name, op.chain)
                    changed = changed.union(*(changes(o.effects) for o in inside))
                if op.act is not Act.END:
                    changed = changed | changes(op.effects)

        check(stage.root, set())


# -------------------------------------------------------------------------------------------------- chains alone


def test_a_chain_alone_is_one_stage() -> None:
    host = make_host(filter="-N MINE\n-A MINE -p tcp -j DROP\n-A FORWARD -j MINE")
    (builtin,) = stages_of_chain(builder_of(host), "filter", "FORWARD")
    (user,) = stages_of_chain(builder_of(host), "filter", "MINE")
    assert (builtin.name, user.name) == ("alone", "alone")
    policies = [b.policy for s in (builtin, user) for k, b in s.blocks.items() if b.policy is not None]
    assert policies == [Act.ACCEPT, Act.RETURN]
    hooks = {b.hook for k, b in user.blocks.items() if k.startswith("alone")}
    assert hooks == {Hook.FORWARD}
    with pytest.raises(LookupError, match="NOBODY"):
        stages_of_chain(builder_of(host), "filter", "NOBODY")
