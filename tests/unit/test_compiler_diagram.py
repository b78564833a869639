"""Decision diagrams of drawn stages against a walk that takes the ops one by one, for every combination of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.compiler.classes import Partition, partition
from fastpath.compiler.diagram import TESTS, Diagram, Level, TooLargeError, build
from fastpath.compiler.fields import (
    TRUE,
    UNKNOWN,
    Condition,
    Field,
    Values,
    all_of,
    any_of,
    equals,
    masked_equals,
    none_of,
)
from fastpath.compiler.fields import test as value_in
from fastpath.compiler.machine import Machine, Outcome
from fastpath.compiler.program import Act, Block, Effect, End, Op, Stage
from fastpath.kernels import codes
from fastpath.packets.schema import Hook, Verdict

# --------------------------------------------------------------------------------------------- the naive walk


@dataclass
class Trip:
    """What a walk has met so far; `choose` answers for every undecided op that makes a difference."""

    choose: Callable[[Op, Block], bool]
    effects: list[Effect] = field(default_factory=list)
    rule: int | None = None
    oif: int = -1
    walked: int = 0
    path: list[int] = field(default_factory=list)


class Done(Exception):
    """The way has ended."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


def end(trip: Trip, verdict: Verdict, hook: Hook, stage: str | None = None) -> Done:
    shown = stage is not None or (
        hook in (Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING) and verdict is not Verdict.UNDECIDED)
    return Done(Outcome(verdict, hook, stage, trip.rule, trip.oif if shown else -1, tuple(trip.effects), trip.walked,
                        tuple(trip.path)))


def walk_chain(stage: Stage, key: str, base: str, truth: Callable[[Condition], bool | None], trip: Trip) -> int | None:
    """Walks a chain -> the rule that returned, -1 at its end, or None where the packet was accepted."""
    block = stage.blocks[key]
    for op in block.ops:
        trip.walked += op.counted
        holds = truth(op.condition)
        if holds is None:
            holds = (op.act is not Act.NEXT or bool(op.effects)) and trip.choose(op, block)
        if not holds:
            continue
        if op.counted:
            trip.path.append(op.ref)
        if op.effects == (Effect(codes.FORGET),):
            trip.rule = -1
        else:
            trip.effects += op.effects
        trip.oif = trip.oif if op.oif is None else op.oif
        if op.act is Act.ACCEPT:
            if stage.blocks[base].decides:
                trip.rule = op.ref
            return None
        if op.act in (Act.DROP, Act.REJECT, Act.UNDECIDED):
            trip.rule = op.ref
            raise end(trip, Verdict[op.act.name], block.hook)
        if op.act is Act.RETURN:
            return op.ref
        if op.act is Act.JUMP:
            if walk_chain(stage, op.chain, base, truth, trip) is None:
                return None
        elif op.act is Act.GOTO:
            return walk_chain(stage, op.chain, base, truth, trip)
        elif op.act is Act.CALL:
            walk_builtin(stage, op.chain, truth, trip)
        elif op.act is Act.END:
            assert op.end is not None
            if op.end.stage is None and op.end.verdict in (Verdict.DROP, Verdict.ICMP_ERROR):
                trip.rule = op.ref
            raise end(trip, op.end.verdict, op.end.hook, op.end.stage)
    return -1


def walk_builtin(stage: Stage, key: str, truth: Callable[[Condition], bool | None], trip: Trip) -> None:
    """A builtin chain: returns where it accepts."""
    returned = walk_chain(stage, key, key, truth, trip)
    if returned is None:
        return
    block = stage.blocks[key]
    if block.policy_ref >= 0:
        trip.path.append(block.policy_ref)
    if block.policy is Act.ACCEPT:
        trip.rule = block.policy_ref if block.decides else trip.rule
        return
    trip.rule = returned if block.policy is Act.RETURN else block.policy_ref
    raise end(trip, Verdict.RETURN if block.policy is Act.RETURN else Verdict.DROP, block.hook)


def naive(
    stage: Stage, truth: Callable[[Condition], bool | None], choices: Sequence[bool] = ()
) -> tuple[Outcome, list[tuple[int, Hook]]]:
    """Where a stage leads if its undecided ops match as `choices` say, the others not -> (end, undecided ops met)."""
    met: list[tuple[int, Hook]] = []

    def choose(op: Op, block: Block) -> bool:
        met.append((op.ref, block.hook))
        return len(met) <= len(choices) and choices[len(met) - 1]

    with pytest.raises(Done) as done:
        walk_chain(stage, stage.root, "", truth, Trip(choose))
    return done.value.outcome, met


def every_outcome(stage: Stage, truth: Callable[[Condition], bool | None]) -> dict[tuple[bool, ...], Outcome]:
    """The outcome of every combination of choices, by the choices up to the last one that matches."""
    found: dict[tuple[bool, ...], Outcome] = {}
    pending: list[tuple[bool, ...]] = [()]
    while pending:
        choices = pending.pop()
        found[choices], met = naive(stage, truth, choices)
        pending += [(*choices, *[False] * (i - len(choices)), True) for i in range(len(choices), len(met))]
    return found


# ------------------------------------------------------------------------------------------------ drawn stages

VALUES = (0, 1, 2, 6, 17, 255)
some_values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=2, unique=True).map(lambda v: Values.single(*v))
tests_ = st.one_of(
    st.builds(value_in, st.sampled_from(("proto", "ttl")), some_values),
    st.builds(equals, st.just("extra:a"), st.integers(0, 1)),
    st.builds(masked_equals, st.just("mark"), st.sampled_from((0, 2)), st.just(0x8002)),
)
conditions = st.one_of(
    tests_, tests_, st.just(TRUE), st.lists(tests_, min_size=2, max_size=2).map(lambda c: all_of(*c)),
    st.lists(tests_, min_size=2, max_size=2).map(lambda c: any_of(*c)), tests_.map(none_of),
)
perhaps = st.one_of(conditions, conditions, conditions, st.just(UNKNOWN), conditions.map(lambda c: all_of(c, UNKNOWN)),
                    st.tuples(conditions, tests_).map(lambda c: any_of(all_of(c[0], UNKNOWN), c[1])))
effects = st.sampled_from(((), (), (Effect(codes.TTL_SUB, 1),), (Effect(codes.TOS, 3, 4), Effect(codes.CHOICE))))


@st.composite
def chain_ops(draw: st.DrawFn, jumps: Sequence[str], first_ref: int) -> tuple[Op, ...]:
    """The rules of a chain."""
    acts = [Act.NEXT, Act.ACCEPT, Act.DROP, Act.REJECT, Act.RETURN, Act.UNDECIDED]
    acts += [Act.JUMP, Act.JUMP, Act.GOTO] if jumps else []
    ops = []
    for i in range(draw(st.integers(0, 4))):
        act = draw(st.sampled_from(acts))
        ops.append(Op(
            draw(perhaps), act, draw(st.sampled_from(jumps)) if act in (Act.JUMP, Act.GOTO) else "", first_ref + i,
            True, draw(effects) if act in (Act.NEXT, Act.ACCEPT) else ()))
    return tuple(ops)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """A root that calls builtin chains between steps of its own, and branches at its end."""
    users = [f"u{i}" for i in range(draw(st.integers(0, 2)))]
    blocks = {
        name: Block(draw(chain_ops(users[i + 1:], 100 * (i + 1))), Hook.FORWARD)
        for i, name in enumerate(users)
    }
    root: list[Op] = []
    for i in range(draw(st.integers(1, 2))):
        name = f"chain{i}"
        first = 1000 * (i + 1)
        ops = draw(chain_ops(users, first))
        hook = draw(st.sampled_from((Hook.PREROUTING, Hook.FORWARD)))
        policy = draw(st.sampled_from((Act.ACCEPT, Act.ACCEPT, Act.DROP, Act.RETURN)))
        blocks[name] = Block(ops, hook, policy, draw(st.sampled_from((-1, first + 99))), draw(st.booleans()))
        root.append(Op(draw(st.one_of(st.just(TRUE), tests_)), Act.CALL, name))
        if draw(st.booleans()):
            root.append(Op(draw(conditions), oif=draw(st.sampled_from((None, 3))), effects=draw(effects)))
    if draw(st.booleans()):
        root.append(Op(draw(conditions), effects=(Effect(codes.FORGET),)))
    if draw(st.booleans()):
        ends = (End(Verdict.DROP, Hook.ROUTE), End(stage="more"), End(Verdict.ICMP_ERROR, Hook.ROUTE))
        root.append(Op(draw(conditions), Act.END, end=draw(st.sampled_from(ends))))
    if draw(st.booleans()):
        blocks["root/branch"] = Block((Op(TRUE, effects=draw(effects)), Op(TRUE, Act.END, end=End(stage="other"))),
                                      Hook.PREROUTING)
        root.append(Op(draw(conditions), Act.GOTO, "root/branch"))
    root.append(Op(TRUE, Act.END, end=End(Verdict.FORWARD, Hook.POSTROUTING)))
    return Stage("drawn", "root", {"root": Block(tuple(root), Hook.PREROUTING), **blocks})


# --------------------------------------------------------------------------------------- diagrams of these stages


def partitions_of(machine: Machine) -> dict[Field, Partition]:
    """The classes that the terms of a stage need."""
    sets: dict[Field, list[Values]] = {}
    for term in machine.terms:
        for f, values in term.tests:
            sets.setdefault(f, []).append(values)
    return {f: partition(f, v) for f, v in sorted(sets.items())}


def level_of(slot: int, fields: Sequence[Field], partitions: dict[Field, Partition]) -> Level:
    """A level over one field, or over the product of several."""
    members = np.array(list(product(*(range(partitions[f].count) for f in fields))), np.int64)
    return Level(slot, tuple(fields), members, members, np.arange(len(members)))


def diagram_of(
    stage: Stage, levels: Sequence[Level] | None = None, *, max_words: int = 1 << 20, max_work: int = 1 << 20
) -> tuple[Diagram, list[Level], dict[Field, Partition]]:
    machine = Machine(stage)
    partitions = partitions_of(machine)
    if levels is None:
        levels = [level_of(i, [f], partitions) for i, f in enumerate(partitions)]
    found = build(machine, levels, partitions, max_words=max_words, max_work=max_work)
    return found, list(levels), partitions


def record_of(found: Diagram, levels: Sequence[Level], classes: dict[Field, int]) -> int:
    """The leaf that a combination of classes leads to."""
    by_slot = {level.slot: level for level in levels}
    word = found.root
    for slot in found.levels:
        level = by_slot[slot]
        mine = [classes[f] for f in level.fields]
        which = next(i for i, row in enumerate(level.members.tolist()) if row == mine)
        word = int(found.rows[(word & (TESTS - 1)) + (which if word & TESTS else 0)])
    assert word < len(found.leaves)
    return word


def truth_for(partitions: dict[Field, Partition], classes: dict[Field, int]) -> Callable[[Condition], bool | None]:
    """Truth of conditions for packets of given classes; asks the sets and not the terms' bits."""
    def truth(condition: Condition) -> bool | None:
        found: bool | None = False
        for term in condition:
            if all(partitions[f].members(values)[classes[f]] for f, values in term.tests):
                if not term.unknown:
                    return True
                found = None
        return found
    return truth


@settings(max_examples=300)
@given(stages(), st.randoms(use_true_random=False))
def test_every_combination_of_classes(stage: Stage, rnd: Random) -> None:
    partitions = partitions_of(Machine(stage))
    order = list(partitions)
    rnd.shuffle(order)
    cut = rnd.randrange(len(order) + 1)
    groups = [order[:cut], *([f] for f in order[cut:])] if cut > 1 else [[f] for f in order]
    found, levels, _ = diagram_of(stage, [level_of(7 + i, g, partitions) for i, g in enumerate(groups)])
    for combination in product(*(range(p.count) for p in partitions.values())):
        classes = dict(zip(partitions, combination, strict=True))
        truth = truth_for(partitions, classes)
        plain, alternatives = found.leaves[record_of(found, levels, classes)]
        expected, _ = naive(stage, truth)
        assert plain == expected
        outcomes = every_outcome(stage, truth)
        assert {a.outcome.fate for a in alternatives} == {o.fate for o in outcomes.values()} - {plain.fate}
        for a in alternatives:
            assert a.outcome in outcomes.values()


@settings(max_examples=100)
@given(stages())
def test_alternatives_name_the_first_rule_and_come_alone_first(stage: Stage) -> None:
    """Alternatives of one undecided rule are in front, in walking order, and each says which rule begins it."""
    partitions = partitions_of(Machine(stage))
    found, levels, _ = diagram_of(stage)
    for combination in product(*(range(p.count) for p in partitions.values())):
        classes = dict(zip(partitions, combination, strict=True))
        truth = truth_for(partitions, classes)
        plain, alternatives = found.leaves[record_of(found, levels, classes)]
        _, met = naive(stage, truth)
        outcomes = every_outcome(stage, truth)
        singles: dict[object, tuple[int, Hook]] = {}
        for i, which in enumerate(met):
            fate = outcomes[(*[False] * i, True)].fate
            if fate != plain.fate:
                singles.setdefault(fate, which)
        alone = [a for a in alternatives if a.alone]
        assert list(alternatives[:len(alone)]) == alone
        assert [(a.outcome.fate, (a.rule, a.hook)) for a in alone] == list(singles.items())
        for a in alternatives[len(alone):]:
            first = next(
                i for i in range(len(met))
                if any(c[:i + 1] == (*[False] * i, True) and o.fate == a.outcome.fate for c, o in outcomes.items()))
            assert (a.rule, a.hook) == met[first]


# --------------------------------------------------------------------------------------------------- by hand


def simple_stage(*ops: Op) -> Stage:
    """A root of the given steps that forwards in the end."""
    last = Op(TRUE, Act.END, end=End(Verdict.FORWARD, Hook.POSTROUTING))
    return Stage("simple", "root", {"root": Block((*ops, last), Hook.PREROUTING)})


def drops(condition: Condition) -> Op:
    return Op(condition, Act.END, end=End(Verdict.DROP, Hook.ROUTE))


TWO_PROTOCOLS = simple_stage(
    drops(all_of(equals("proto", 6), equals("dport", 80))), drops(all_of(equals("proto", 17), equals("dport", 80))))


def test_equal_rows_are_shared() -> None:
    """Two protocols with the same ports are two sets of terms, but one row of ports."""
    found, levels, partitions = diagram_of(TWO_PROTOCOLS, [
        level_of(0, [Field("proto")], partitions_of(Machine(TWO_PROTOCOLS))),
        level_of(1, [Field("dport")], partitions_of(Machine(TWO_PROTOCOLS)))])
    assert found.levels == [0, 1]
    assert len(found.rows) == 3 + 2 + 1  # and one word for the protocols that have no ports to look at
    assert len(found.leaves) == 2
    for proto, dport in product((6, 17, 1), (80, 81)):
        classes = {f: partitions[f].class_of_value(v) for f, v in ((Field("proto"), proto), (Field("dport"), dport))}
        verdict = found.leaves[record_of(found, levels, classes)][0].verdict
        assert verdict is (Verdict.DROP if proto != 1 and dport == 80 else Verdict.FORWARD)


def test_a_test_that_changes_nothing_is_no_node() -> None:
    stage = simple_stage(Op(equals("ttl", 1), Act.END, end=End(Verdict.FORWARD, Hook.POSTROUTING)))
    found, _, _ = diagram_of(stage)
    assert len(found.leaves) == 1 and not found.root & TESTS and len(found.rows) == 1


def test_what_lies_behind_a_sure_verdict_is_never_looked_at() -> None:
    stage = simple_stage(drops(TRUE), drops(equals("ttl", 1)))
    found, _, _ = diagram_of(stage)
    assert [o.verdict for o, _ in found.leaves] == [Verdict.DROP]
    assert not found.root & TESTS and len(found.rows) == 1


def test_a_stage_without_tests_is_one_record() -> None:
    found, levels, _ = diagram_of(simple_stage())
    assert found.levels == [] and record_of(found, levels, {}) == 0
    assert [o.verdict for o, _ in found.leaves] == [Verdict.FORWARD]


def test_what_lies_behind_an_accepting_user_chain_is_looked_at() -> None:
    """ACCEPT ends the builtin chain that led to the user chain, and not the packet's way."""
    for jump in (Act.JUMP, Act.GOTO):
        user = Block((Op(TRUE, Act.ACCEPT, ref=1, counted=True), Op(TRUE, Act.DROP, ref=2, counted=True)), Hook.FORWARD)
        builtin = Block((Op(TRUE, jump, "user", 3, True), Op(TRUE, Act.DROP, ref=4, counted=True)), Hook.FORWARD,
                        Act.DROP, 5, True)
        root = (Op(TRUE, Act.CALL, "chain"), *simple_stage(drops(equals("ttl", 1))).blocks["root"].ops)
        stage = Stage("nested", "root", {"root": Block(root, Hook.PREROUTING), "chain": builtin, "user": user})
        found, levels, partitions = diagram_of(stage)
        ttl = partitions[Field("ttl")]
        for value, verdict in ((1, Verdict.DROP), (2, Verdict.FORWARD)):
            outcome, _ = found.leaves[record_of(found, levels, {Field("ttl"): ttl.class_of_value(value)})]
            assert (outcome.verdict, outcome.path, outcome.walked) == (verdict, (3, 1), 2)


def test_a_level_that_no_term_tests_is_left_out() -> None:
    partitions = partitions_of(Machine(TWO_PROTOCOLS))
    other = {**partitions, Field("ttl"): partition(Field("ttl"), [Values.single(1)])}
    levels = [level_of(i, [f], other) for i, f in enumerate(other)]
    found = build(Machine(TWO_PROTOCOLS), levels, other, max_words=100, max_work=1000)
    assert len(found.levels) == 2
    assert {levels[s].fields[0].base for s in found.levels} == {"proto", "dport"}


@pytest.mark.parametrize("limits", [{"max_words": 1}, {"max_work": 1}])
def test_budgets(limits: dict[str, int]) -> None:
    with pytest.raises(TooLargeError):
        diagram_of(TWO_PROTOCOLS, **limits)  # type: ignore[arg-type]
    size = len(diagram_of(TWO_PROTOCOLS)[0].rows)
    assert len(diagram_of(TWO_PROTOCOLS, max_words=size)[0].rows) == size
    with pytest.raises(TooLargeError):
        diagram_of(TWO_PROTOCOLS, max_words=size - 1)


def test_many_levels() -> None:
    """More fields than a machine word has bits, each of which decides."""
    ops = [drops(equals(f"extra:x{i}", 1)) for i in range(70)]
    found, levels, partitions = diagram_of(simple_stage(*ops))
    assert len(found.levels) == 70
    none = {f: p.class_of_value(0) for f, p in partitions.items()}
    assert found.leaves[record_of(found, levels, none)][0].verdict is Verdict.FORWARD
    for f, p in partitions.items():
        one = {**none, f: p.class_of_value(1)}
        assert found.leaves[record_of(found, levels, one)][0].verdict is Verdict.DROP


def test_progress_is_reported_by_level() -> None:
    seen: list[float] = []
    machine = Machine(TWO_PROTOCOLS)
    partitions = partitions_of(machine)
    levels = [level_of(i, [f], partitions) for i, f in enumerate(partitions)]
    build(machine, levels, partitions, max_words=100, max_work=1000, progress=seen.append)
    assert seen == [0.0, 0.5]
