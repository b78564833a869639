"""All packets through a host at once.

The same lowered program as the compiler's (``compiler.flow``) is walked once, with sets of headers in place of a
packet. At each place stand pairs of a :class:`~fastpath.symbolic.header.Header`, what the fields hold by now, and the
set of the headers that arrived for which that is so. An op's condition, seen through a header, is a set of arrived
headers: where it is empty, which constants that NAT wrote make so for most rules, nothing happens.

An undecided rule is given a variable of its own for each place at which it can be met (with the calls that led
there): a set of "headers and choices" then holds every possible way, and what became of a packet is decided where it
does not depend on these variables (``undecided.py``).

Invariant: what goes in at a step comes out, to the bit: the ends of a walk are a partition of the headers and choices.
Safe direction: an effect or an op that is not known here is refused.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fastpath.compiler.fields import TRUE, Condition, Field, Values
from fastpath.compiler.flow import Step, Ways, tested
from fastpath.compiler.program import Act, Block, End, Op
from fastpath.errors import CompileError
from fastpath.kernels import codes
from fastpath.packets.schema import Hook, Verdict
from fastpath.symbolic.effects import Effects
from fastpath.symbolic.header import Header, Origin

ORDER = ("arriving", "input", "forward", "local", "local-rules", "output", "loop", "alone")
"""The ways of a host: none leads to an earlier one."""

DECIDING = {"output": "local-rules"}
"""The way whose filter table decides about what ends on another."""

Sets: TypeAlias = dict[Header, int]


@dataclass(frozen=True)
class Place:
    """Where a packet's way ended.

    Attributes:
        verdict, hook: the end.
        rule: rule id that ended it, or -1; None where the filter table of `way` has accepted it.
        way: the way whose filter table decides.
        header: what the fields hold.
    """

    verdict: Verdict
    hook: Hook
    rule: int | None
    way: str
    header: Header


@dataclass(frozen=True)
class Meeting:
    """An undecided rule met at one place: its variable, and where that is in walking order."""

    order: tuple[int, ...]
    variable: int
    rule: int
    hook: Hook


@dataclass
class Walked:
    """What a walk of all packets found; every set is one of headers and choices.

    Attributes:
        ends: set by place.
        accepted: by way and rule id, what the filter table let pass.
        meetings: undecided rules by place, in no order.
        met: for each meeting's variable the set that meets it.
        reached, matched, doubtful: sets by rule id (policies included), if they were asked for: what a rule examines,
            what surely matches it, and what perhaps does besides.
    """

    ends: dict[Place, list[int]] = field(default_factory=lambda: defaultdict(list))
    accepted: dict[str, dict[int, list[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    meetings: dict[tuple[int, ...], Meeting] = field(default_factory=dict)
    met: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    reached: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    matched: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    doubtful: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))


@dataclass(frozen=True, slots=True)
class Live:
    """An op that can hold: its index, and where it surely and perhaps does."""

    index: int
    sure: int
    perhaps: int


class BlockIndex:
    """Which ops of a block can hold where fields have known values: most of a long chain falls away by one look-up.

    Attributes:
        bases: every base that some op looks at.
        bases_of: the same for each op.
    """

    def __init__(self, block: Block) -> None:
        self.bases_of = tuple(
            tuple(sorted({f.base for term in op.condition for f, _ in term.tests})) for op in block.ops
        )
        self.bases = tuple(sorted(frozenset().union(*self.bases_of)))
        self.block = block
        self._tables: dict[str, tuple[list[int], list[int]]] = {}

    def _table(self, base: str) -> tuple[list[int], list[int]]:
        """Starts of intervals of a base's values, and for each the ops that can hold there, as bits."""
        found = self._tables.get(base)
        if found is not None:
            return found
        always = 0
        changes: dict[int, int] = defaultdict(int)
        plain = Field(base)
        for number, op in enumerate(self.block.ops):
            sets = [term.values(plain) for term in op.condition]
            if any(values is None for values in sets):
                always |= 1 << number
                continue
            for first, last in Values.of(i for values in sets if values is not None for i in values):
                changes[first] ^= 1 << number
                changes[last + 1] ^= 1 << number
        starts, members, holding = [0], [always], 0
        for start in sorted(changes):
            holding ^= changes[start]
            if start == starts[-1]:
                members[-1] = always | holding
            else:
                starts.append(start)
                members.append(always | holding)
        self._tables[base] = starts, members
        return starts, members

    def candidates(self, header: Header) -> Iterator[int]:
        """The ops that the fields with known values do not rule out, in order."""
        left = (1 << len(self.block.ops)) - 1
        for base in self.bases:
            value = header.constant(base)
            if value is not None:
                starts, members = self._table(base)
                left &= members[bisect_right(starts, value) - 1]
        while left:
            bit = left & -left
            yield bit.bit_length() - 1
            left ^= bit


class Walker:
    """Walks the ways of one host."""

    def __init__(self, origin: Origin, ways: Ways, *, record: bool = False) -> None:
        self.origin = origin
        self.store = origin.store
        self.ways = ways
        self.record = record
        steps = [s for found in ways.steps.values() for s in found]
        self.looked = frozenset().union(*(tested(s) for s in steps)) if steps else frozenset()
        self.effects = Effects(origin, self.looked)
        self.walked = Walked()
        self._headers: dict[object, Header] = {}
        self._indexes: dict[int, BlockIndex] = {}
        self._conditions: dict[tuple[object, ...], tuple[int, int]] = {}
        self._live: dict[tuple[object, ...], list[Live]] = {}
        self._waiting: dict[str, dict[Header, list[int]]] = {w: defaultdict(list) for w in ORDER}
        self._way = ""
        unknown = set(ways.steps) - set(ORDER)
        if unknown:
            raise CompileError(f"sets of packets cannot follow the way {min(unknown)!r} yet")

    def run(self, entries: Mapping[str, int]) -> Walked:
        """Walks sets of headers in at some ways."""
        start = self.same(Header(self.origin, {}, -1))
        for way, diagram in entries.items():
            self._waiting[way][start].append(diagram)
        for number, way in enumerate(ORDER):
            waiting = self._waiting[way]
            if not waiting:
                continue
            self._way = way
            sets = self._merged(waiting)
            for at, step in enumerate(self.ways.steps.get(way, ())):
                sets = self._step(step, sets, (number, at))
            if way in self.ways.ends:
                for header, here in sets.items():
                    self._finish(self.ways.ends[way], header, here, None)
        return self.walked

    # ------------------------------------------------------------------------------------------------ steps

    def same(self, header: Header) -> Header:
        """The one object that stands for this header: equal headers are then identical."""
        return self._headers.setdefault(header.key(), header)

    def _merged(self, found: Mapping[Header, Iterable[int]]) -> Sets:
        merged = ((header, self.store.any_of(parts)) for header, parts in found.items())
        return {header: here for header, here in merged if here}

    def _step(self, step: Step, sets: Sets, path: tuple[int, ...]) -> Sets:
        root = step.blocks[step.key]
        onward: dict[Header, list[int]] = defaultdict(list)
        inside: Sets = {}
        for header, here in sets.items():
            guard = 1 if step.guard == TRUE else self._condition(step.guard, header)[0]
            within = self.store.both(here, guard)
            if within:
                inside[header] = within
            outside = self.store.without(here, guard)
            if outside:
                onward[header].append(outside)
        if inside:
            falls, accepts = self._block(step, root, step.key, inside, path)
            for (header, returned), parts in falls.items():
                if root.policy is None:
                    onward[header] += parts
                else:
                    self._policy(root, header, parts, returned, onward)
            for header, parts in accepts.items():
                onward[header] += parts
        return self._merged(onward)

    def _policy(
        self, root: Block, header: Header, parts: list[int], returned: int, onward: dict[Header, list[int]]
    ) -> None:
        if self.record and root.policy_ref >= 0:
            self.walked.reached[root.policy_ref].update(parts)
            self.walked.matched[root.policy_ref].update(parts)
        if root.policy is Act.ACCEPT:
            if root.decides:
                self.walked.accepted[self._way][root.policy_ref] += parts
            onward[header] += parts
        elif root.policy is Act.RETURN:
            self._end(Verdict.RETURN, root.hook, returned, header, parts)
        else:
            self._end(Verdict.DROP, root.hook, root.policy_ref, header, parts)

    def _end(self, verdict: Verdict, hook: Hook, rule: int | None, header: Header, parts: Iterable[int]) -> None:
        way = DECIDING.get(self._way, self._way)
        self.walked.ends[Place(verdict, hook, rule, way, header)] += parts

    def _finish(self, end: End, header: Header, here: int, op: Op | None) -> None:
        """An END: on to another way, or the end of all."""
        if end.stage is not None:
            self._waiting[end.stage][header].append(here)
        elif end.verdict in (Verdict.DROP, Verdict.ICMP_ERROR, Verdict.UNDECIDED):
            self._end(end.verdict, end.hook, -1 if op is None else op.ref, header, [here])
        else:
            self._end(end.verdict, end.hook, None, header, [here])

    # ------------------------------------------------------------------------------------------------ chains

    def _block(
        self, step: Step, root: Block, key: str, sets: Sets, path: tuple[int, ...]
    ) -> tuple[dict[tuple[Header, int], list[int]], dict[Header, list[int]]]:
        """Walks a chain.

        Returns:
            What leaves it at its end or by RETURN, by header and the RETURN's rule id (-1 elsewhere), and what a rule
            in it, or below, has accepted.
        """
        block = step.blocks[key]
        falls: dict[tuple[Header, int], list[int]] = defaultdict(list)
        accepts: dict[Header, list[int]] = defaultdict(list)
        here: Sets = dict(sets)
        lives: dict[Header, list[Live]] = {}
        at: dict[Header, int] = {}
        examined: dict[Header, int] = {}
        queue: list[int] = []
        waiting: dict[int, list[Header]] = defaultdict(list)

        def enter(header: Header, index: int) -> None:
            """Queues a header's next live op at or behind `index`."""
            live = lives.get(header)
            if live is None:
                live = lives[header] = self._live_ops(block, header)
            at[header] = bisect_left(live, index, key=_index)
            if at[header] < len(live):
                place = live[at[header]].index
                if not waiting[place]:
                    heapq.heappush(queue, place)
                waiting[place].append(header)

        for header in here:
            examined[header] = 0
            enter(header, 0)
        while queue:
            index = heapq.heappop(queue)
            op = block.ops[index]
            born: dict[Header, list[int]] = defaultdict(list)
            moving = waiting.pop(index)
            for header in moving:
                live = lives[header][at[header]]
                present = here[header]
                if self.record:
                    self._examine(block, examined[header], index + 1, present)
                    examined[header] = index + 1
                matched, stays = self._split(op, block, live, present, (*path, index))
                if matched:
                    stays = self.store.either(
                        stays, self._apply(step, root, block, op, header, matched, (*path, index), falls, accepts, born)
                    )
                here[header] = stays
            for header in moving:
                if here[header] == 0:
                    del here[header]
                else:
                    enter(header, index + 1)
            for header, parts in born.items():
                if header in here:
                    if self.record:
                        self._examine(block, examined[header], index + 1, here[header])
                    here[header] = self.store.any_of([here[header], *parts])
                    examined[header] = index + 1
                    continue
                here[header] = self.store.any_of(parts)
                examined[header] = index + 1
                enter(header, index + 1)
        for header, left in here.items():
            if self.record:
                self._examine(block, examined[header], len(block.ops), left)
            falls[header, -1].append(left)
        return falls, accepts

    def _examine(self, block: Block, first: int, end: int, here: int) -> None:
        for op in block.ops[first:end]:
            if op.counted:
                self.walked.reached[op.ref].add(here)

    def _split(self, op: Op, block: Block, live: Live, present: int, path: tuple[int, ...]) -> tuple[int, int]:
        """What matches an op and what does not; the outcome of an undecided one is a variable where it matters."""
        store = self.store
        condition = live.sure
        if live.perhaps:
            doubtful = store.both(present, live.perhaps)
            if self.record and op.counted:
                self.walked.doubtful[op.ref].add(doubtful)
            if doubtful and (op.act is not Act.NEXT or op.effects):
                meeting = self._meeting(op, block, path)
                self.walked.met[meeting.variable] = store.either(self.walked.met[meeting.variable], doubtful)
                chosen = store.both(live.perhaps, store.variable(meeting.variable))
                condition = store.either(condition, chosen)
        matched = store.both(present, condition)
        if self.record and op.counted:
            self.walked.matched[op.ref].add(matched)
        return matched, store.without(present, condition)

    def _meeting(self, op: Op, block: Block, path: tuple[int, ...]) -> Meeting:
        found = self.walked.meetings.get(path)
        if found is None:
            variable = self.origin.space.choice_start + len(self.walked.meetings)
            found = self.walked.meetings[path] = Meeting(path, variable, op.ref, block.hook)
        return found

    def _apply(
        self, step: Step, root: Block, block: Block, op: Op, header: Header, matched: int, path: tuple[int, ...],
        falls: dict[tuple[Header, int], list[int]], accepts: dict[Header, list[int]], born: dict[Header, list[int]],
    ) -> int:
        """An op whose condition holds for `matched` -> what of it goes on behind the op with the header unchanged."""
        changed = self._changed(header, op, matched)
        match op.act:
            case Act.NEXT:
                if changed is header:
                    return matched
                born[changed].append(matched)
            case Act.ACCEPT:
                if root.decides:
                    self.walked.accepted[self._way][op.ref].append(matched)
                accepts[changed].append(matched)
            case Act.DROP:
                self._end(Verdict.DROP, block.hook, op.ref, changed, [matched])
            case Act.REJECT:
                self._end(Verdict.REJECT, block.hook, op.ref, changed, [matched])
            case Act.UNDECIDED:
                self._end(Verdict.UNDECIDED, block.hook, op.ref, changed, [matched])
            case Act.RETURN:
                falls[changed, op.ref].append(matched)
            case Act.JUMP | Act.GOTO:
                below, accepted = self._block(step, root, op.chain, {changed: matched}, path)
                for after, parts in accepted.items():
                    accepts[after] += parts
                back = 0
                for (after, returned), parts in below.items():
                    if op.act is Act.GOTO:
                        falls[after, returned] += parts
                    elif after is header:
                        back = self.store.any_of([back, *parts])
                    else:
                        born[after] += parts
                return back
            case Act.END:
                assert op.end is not None
                self._finish(op.end, changed, matched, op)
            case _:
                raise CompileError(f"sets of packets cannot follow an op that does {op.act.value!r} yet")
        return 0

    def _changed(self, header: Header, op: Op, matched: int) -> Header:
        """The header behind an op's effects and its choice of an interface."""
        egress = header.egress if op.oif is None else op.oif
        effects = [e for e in op.effects if e.code != codes.FORGET]
        if not effects and egress == header.egress:
            return header
        after = self.effects.apply(header, effects, matched)
        return self.same(Header(self.origin, after.changed, egress))

    # -------------------------------------------------------------------------------------------- conditions

    def _condition(self, condition: Condition, header: Header) -> tuple[int, int]:
        """Where a condition surely holds, and where it perhaps does besides."""
        sure: list[int] = []
        perhaps: list[int] = []
        for term in condition:
            parts = []
            for tested_field, values in term.tests:
                part = header.test(tested_field, values)
                if part == 0:
                    break
                if part != 1:
                    parts.append(part)
            else:
                found = self.store.all_of(parts) if len(parts) > 1 else parts[0] if parts else 1
                (perhaps if term.unknown else sure).append(found)
        holds = self.store.any_of(sure) if len(sure) > 1 else sure[0] if sure else 0
        return holds, self.store.without(self.store.any_of(perhaps), holds) if perhaps else 0

    def _live_ops(self, block: Block, header: Header) -> list[Live]:
        """The ops of a block that can hold for packets with this header."""
        index = self._indexes.get(id(block))
        if index is None:
            index = self._indexes[id(block)] = BlockIndex(block)
        changed = header.changed
        key = (id(block), *(changed.get(base) for base in index.bases))
        live = self._live.get(key)
        if live is None:
            live = self._live[key] = []
            for number in index.candidates(header):
                op = block.ops[number]
                seen = (id(op), *(changed.get(base) for base in index.bases_of[number]))
                found = self._conditions.get(seen)
                if found is None:
                    found = self._conditions[seen] = self._condition(op.condition, header)
                if found[0] or found[1]:
                    live.append(Live(number, *found))
        return live


def _index(live: Live) -> int:
    return live.index
