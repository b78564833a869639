"""Walking a stage whose conditions are known in part.

The terms of all ops of a stage are numbered, op by op and block by block, and a set of terms is one Python integer,
a bit for each. What a class of packets can still do is then a single number: the terms that may yet hold. Two
questions are asked of it:

* :meth:`Machine.relevant`: which of those terms can still matter, when some are known to hold? (What lies behind a
  sure verdict cannot.) Equal answers mean equal futures, which is what lets a diagram share nodes.
* :meth:`Machine.outcomes`: when all terms are known (or undecided for good), what happens?

Safe direction: a term that is kept though it does not matter costs a node; one that is dropped though it matters
would be a wrong answer, so ``relevant`` only drops what no walk can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fastpath.compiler.fields import TOUCHED_DST, TOUCHED_MARK, Term
from fastpath.compiler.program import Act, Block, Effect, End, Op, Stage
from fastpath.kernels import codes
from fastpath.packets.schema import Hook, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage does to a packet.

    ``rule`` None means that no filter table has decided here. ``path`` lists the rules and policies that counted, in
    order; ``walked`` is the number of rules examined.
    """

    verdict: Verdict
    hook: Hook
    stage: str | None
    rule: int | None
    oif: int
    effects: tuple[Effect, ...]
    walked: int
    path: tuple[int, ...]

    @property
    def fate(self) -> tuple[object, ...]:
        """What of it can make a difference to the packet."""
        return (self.verdict, self.hook, self.stage, self.oif, self.effects)


@dataclass(frozen=True, slots=True)
class Alternative:
    """What happens if undecided rules match: ``rule`` is the first such rule on the plain path, ``hook`` where it
    stands; ``alone`` says that no other undecided rule need match for it."""

    rule: int
    hook: Hook
    alone: bool
    outcome: Outcome


class Frame(NamedTuple):
    """A place in a block; ``base`` is the key of the builtin chain that the walk is in, ``""`` outside of any."""

    block: str
    at: int
    base: str


@dataclass(slots=True)
class Walk:
    """A walk in progress."""

    stack: tuple[Frame, ...]
    effects: tuple[Effect, ...] = ()
    oif: int = -1
    rule: int | None = None
    walked: int = 0
    path: tuple[int, ...] = ()
    done: Outcome | None = None
    end: End | None = None

    def copy(self) -> Walk:
        return Walk(self.stack, self.effects, self.oif, self.rule, self.walked, self.path, self.done, self.end)


FORGET = (Effect(codes.FORGET),)

TOUCHES = {
    TOUCHED_MARK: (codes.MARK, codes.MARK_RESTORE, codes.TOS),
    TOUCHED_DST: (codes.DST_NAT, codes.DST_MAP),
}
"""Effects that make the kernel route the host's own packet again, by the bit of ``touched``."""

EGRESS_HOOKS = (Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING)

UNSET = -(1 << 40)
"""An interface or a rule that a part of a walk does not set."""

MOST_KNOWN = 200_000
"""Answers about blocks that are remembered."""

MAX_WALKS = 20_000
"""Walks tried for one class of packets before the undecided rules on its way are given up as undecidable."""


def _followed_by(effects: tuple[Effect, ...], effect: Effect) -> tuple[Effect, ...]:
    """Effects with one more behind them; two that change the same bits one after the other become one."""
    last = effects[-1] if effects else None
    if last is not None and last.code == effect.code:
        if effect.code in (codes.MARK, codes.CONNMARK, codes.TOS):
            return (*effects[:-1], Effect(effect.code, last.a & effect.a, (last.b & effect.a) ^ effect.b))
        if effect.code == codes.TTL_SET:
            return (*effects[:-1], effect)
    return (*effects, effect)


ENDS = {Act.DROP: Verdict.DROP, Act.REJECT: Verdict.REJECT, Act.UNDECIDED: Verdict.UNDECIDED}
CALLS = (Act.JUMP, Act.GOTO, Act.CALL)


class Machine:
    """A stage with numbered terms.

    Attributes:
        terms: every term, by number.
        unknown: the set of terms that hold only perhaps.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.terms: list[Term] = []
        self.op_of: list[int] = []
        self.span: dict[str, tuple[int, int]] = {}
        self.firsts: dict[str, list[int]] = {}
        self.counted: dict[str, list[int]] = {}
        self.below: dict[str, int] = {}
        self._walked: dict[tuple[str, int], Walk] = {}
        self._plain: dict[str, bool] = {}
        self._known: dict[int, dict[tuple[str, int], tuple[int, bool, bool]]] = {}
        for key, block in stage.blocks.items():
            start = len(self.terms)
            firsts, counted = self.firsts.setdefault(key, []), self.counted.setdefault(key, [0])
            for index, op in enumerate(block.ops):
                first = len(self.terms)
                firsts.append(first)
                counted.append(counted[-1] + (op.counted if op.weight < 0 else op.weight))
                self.terms.extend(op.condition)
                self.op_of.extend([index] * len(op.condition))
            self.span[key] = (start, len(self.terms))
            firsts.append(len(self.terms))
        self.unknown = sum(1 << i for i, t in enumerate(self.terms) if t.unknown)

    # ---------------------------------------------------------------------------------------------- what matters

    def relevant(self, alive: int, sure: int) -> int:
        """The alive terms that some walk can still reach, given that the `sure` ones among them hold."""
        known = self._known.setdefault(sure, {})
        if len(known) > MOST_KNOWN:
            known.clear()
        return self._relevant_in(self.stage.root, alive, sure, known)[0]

    def forget(self) -> None:
        """Lets go of what is remembered."""
        self._known.clear()
        self._walked.clear()

    def _below(self, key: str) -> int:
        """The terms of a block and of all that it reaches."""
        if key not in self.below:
            start, end = self.span[key]
            found = (1 << end) - (1 << start)
            for chain in {op.chain for op in self.stage.blocks[key].ops if op.chain}:
                found |= self._below(chain)
            self.below[key] = found
        return self.below[key]

    def _relevant_in(
        self, key: str, alive: int, sure: int, known: dict[tuple[str, int], tuple[int, bool, bool]]
    ) -> tuple[int, bool, bool]:
        """-> (relevant terms, may end at its end or RETURN, may ACCEPT); `known` has those of blocks met before."""
        start, end = self.span[key]
        ops = self.stage.blocks[key].ops
        here = (alive >> start) & ((1 << (end - start)) - 1)
        sure_here = (sure >> start) & here
        own, keep, falls, accepts = 0, 0, False, False
        firsts, op_of, below = self.firsts[key], self.op_of, self.below
        while here:
            of_op = here & -here
            index = op_of[start + of_op.bit_length() - 1]
            terms = firsts[index + 1] - firsts[index]
            if terms > 1:
                of_op = (((1 << terms) - 1) << firsts[index] - start) & here
            here ^= of_op
            holds = of_op & sure_here
            own |= (holds & -holds) if holds else of_op
            op = ops[index]
            act = op.act
            if act is Act.NEXT:
                continue
            if act is Act.ACCEPT:
                accepts = True
                stops = True
            elif act is Act.RETURN:
                falls = True
                stops = True
            elif act in CALLS:
                chain = op.chain
                inside = alive & below[chain] if chain in below else alive & self._below(chain)
                if inside:
                    of_chain = known.get((chain, inside))
                    if of_chain is None:
                        of_chain = known[chain, inside] = self._relevant_in(chain, inside, sure, known)
                    sub, sub_falls, sub_accepts = of_chain
                else:
                    sub, sub_falls, sub_accepts = 0, True, False
                keep |= sub
                if act is Act.JUMP:
                    accepts |= sub_accepts
                    stops = not sub_falls
                elif act is Act.GOTO:
                    accepts |= sub_accepts
                    falls |= sub_falls
                    stops = True
                else:
                    policy = self.stage.blocks[chain].policy
                    stops = not (sub_accepts or (sub_falls and policy is Act.ACCEPT))
            else:
                stops = True
            if holds and stops:
                return keep | own << start, falls, accepts
        return keep | own << start, True, accepts

    # -------------------------------------------------------------------------------------------- what happens

    def outcomes(self, alive: int) -> tuple[Outcome, tuple[Alternative, ...]]:
        """What happens where exactly the `alive` terms hold (the unknown ones among them perhaps).

        Returns:
            The outcome if no undecided rule matches, and every different one that is possible otherwise.
        """
        certain = alive & ~self.unknown
        perhaps = alive & self.unknown
        forks: list[tuple[int, Hook, Walk]] = []
        plain = self._run(Walk((Frame(self.stage.root, 0, ""),)), certain, perhaps, forks)
        if not forks:
            return plain, ()
        alternatives: list[Alternative] = []
        known = {plain.fate}
        for rule, hook, walk in forks:
            single = self._run(walk.copy(), certain, 0, [])
            if single.fate not in known:
                known.add(single.fate)
                alternatives.append(Alternative(rule, hook, True, single))
        seen: set[tuple[object, ...]] = set()
        budget = MAX_WALKS
        for rule, hook, walk in forks:
            pending = [walk]
            while pending and budget:
                here = pending.pop()
                state = (here.stack, here.effects, here.oif)
                if state in seen:
                    continue
                seen.add(state)
                budget -= 1
                more: list[tuple[int, Hook, Walk]] = []
                result = self._run(here.copy(), certain, perhaps, more)
                pending.extend(w for _, _, w in more)
                if result.fate not in known:
                    known.add(result.fate)
                    alternatives.append(Alternative(rule, hook, False, result))
            if not budget:
                given_up = Outcome(Verdict.UNDECIDED, hook, None, rule, -1, (), 0, ())
                alternatives.append(Alternative(rule, hook, False, given_up))
                break
        return plain, tuple(alternatives)

    def _call(self, walk: Walk, chain: str, certain: int) -> bool:
        """Walks a builtin chain of which all is certain, as it did before; False where that cannot be remembered."""
        below = self._below(chain)
        if chain not in self._plain:
            self._plain[chain] = not self._touches(chain)
        if not self._plain[chain] or not below & certain:
            return False
        key = (chain, below & certain)
        part = self._walked.get(key)
        if part is None:
            part = Walk((Frame("", 0, ""), Frame(chain, 0, chain)), oif=UNSET, rule=UNSET)
            self._steps(part, certain, 0, [], 1)
            if len(self._walked) > MOST_KNOWN:
                self._walked.clear()
            self._walked[key] = part
        walk.walked += part.walked
        walk.path = (*walk.path, *part.path)
        for effect in part.effects:
            walk.effects = _followed_by(walk.effects, effect)
        if part.oif != UNSET:
            walk.oif = part.oif
        if part.rule != UNSET:
            walk.rule = part.rule
        if part.end is not None:
            self._finish(walk, part.end)
        return True

    def _touches(self, chain: str) -> bool:
        """True where an effect below a chain depends on those before it."""
        block = self.stage.blocks[chain]
        return any(e.code == codes.TOUCH for op in block.ops for e in op.effects) or any(
            self._touches(key) for key in {op.chain for op in block.ops if op.chain})

    def _run(self, walk: Walk, certain: int, perhaps: int, forks: list[tuple[int, Hook, Walk]]) -> Outcome:
        """Walks to the end. Undecided rules do not match; the walk in which each does is added to `forks`."""
        self._steps(walk, certain, perhaps, forks, 0)
        assert walk.done is not None
        return walk.done

    def _steps(
        self, walk: Walk, certain: int, perhaps: int, forks: list[tuple[int, Hook, Walk]], depth: int
    ) -> None:
        """Walks on until it has ended, or no more than `depth` chains are open."""
        alive = certain | perhaps
        blocks = self.stage.blocks
        while walk.done is None and len(walk.stack) > depth:
            frame = walk.stack[-1]
            key, at, base = frame
            block = blocks[key]
            index = self._next(frame, alive)
            counted = self.counted[key]
            if index < 0:
                walk.walked += counted[-1] - counted[at]
                self._leave(walk, -1)
                continue
            op = block.ops[index]
            first, behind = self.firsts[key][index:index + 2]
            mask = ((1 << behind - first) - 1) << first
            walk.walked += counted[index + 1] - counted[at]
            walk.stack = (*walk.stack[:-1], Frame(key, index + 1, base))
            if mask & certain:
                if op.act is Act.CALL and not op.counted and not op.effects and op.oif is None and (
                    not perhaps & self._below(op.chain) and self._call(walk, op.chain, certain)
                ):
                    continue
                self._apply(walk, op, block)
            elif mask & perhaps and (op.act is not Act.NEXT or op.effects):
                matched = walk.copy()
                self._apply(matched, op, block)
                forks.append((op.ref, block.hook, matched))

    def _untouched(self, walk: Walk, bit: int) -> bool:
        """True where only ops of this stage could have changed what TOUCH asks for, and none did."""
        changing = TOUCHES[bit]
        if not any(e.code in changing for b in self.stage.blocks.values() for op in b.ops for e in op.effects):
            return False
        return not any(e.code in changing for e in walk.effects)

    def _next(self, frame: Frame, alive: int) -> int:
        """The first op of a block from the frame's place on that has a term alive, or -1."""
        firsts = self.firsts[frame.block]
        first, end = firsts[frame.at], firsts[-1]
        left = (alive >> first) & ((1 << (end - first)) - 1)
        return self.op_of[first + (left & -left).bit_length() - 1] if left else -1

    def _apply(self, walk: Walk, op: Op, block: Block) -> None:
        """One op whose condition holds."""
        if op.counted:
            walk.path = (*walk.path, op.ref)
        if op.effects == FORGET:
            walk.rule = -1
        elif op.effects and op.effects[0].code == codes.TOUCH and self._untouched(walk, op.effects[0].a):
            pass
        elif op.effects:
            for effect in op.effects:
                walk.effects = _followed_by(walk.effects, effect)
        if op.oif is not None:
            walk.oif = op.oif
        act = op.act
        if act is Act.NEXT:
            return
        if act is Act.JUMP:
            walk.stack = (*walk.stack, Frame(op.chain, 0, walk.stack[-1].base))
        elif act is Act.GOTO:
            walk.stack = (*walk.stack[:-1], Frame(op.chain, 0, walk.stack[-1].base))
        elif act is Act.CALL:
            walk.stack = (*walk.stack, Frame(op.chain, 0, op.chain))
        elif act is Act.ACCEPT:
            self._accept(walk, op.ref)
        elif act is Act.RETURN:
            self._leave(walk, op.ref)
        elif act is Act.END:
            assert op.end is not None
            if op.end.stage is None and op.end.verdict in (Verdict.DROP, Verdict.ICMP_ERROR):
                walk.rule = op.ref
            self._finish(walk, op.end)
        else:
            self._end(walk, ENDS[act], block.hook, op.ref)

    def _accept(self, walk: Walk, ref: int) -> None:
        """ACCEPT: back behind the CALL of the builtin chain that the walk is in."""
        base = walk.stack[-1].base
        if base and self.stage.blocks[base].decides:
            walk.rule = ref
        while walk.stack[-1].base == base and base:
            walk.stack = walk.stack[:-1]

    def _leave(self, walk: Walk, returned: int) -> None:
        """The end of a chain, or RETURN (rule `returned`): back to the caller, or a builtin chain's policy."""
        frame = walk.stack[-1]
        base = frame.base
        outside = len(walk.stack) < 2 or walk.stack[-2].base != base
        if not base or not outside:
            walk.stack = walk.stack[:-1]
            return
        root = self.stage.blocks[base]
        if root.policy_ref >= 0:
            walk.path = (*walk.path, root.policy_ref)
        if root.policy is Act.ACCEPT:
            self._accept(walk, root.policy_ref)
        elif root.policy is Act.RETURN:
            self._end(walk, Verdict.RETURN, root.hook, returned)
        else:
            self._end(walk, Verdict.DROP, root.hook, root.policy_ref)

    def _end(self, walk: Walk, verdict: Verdict, hook: Hook, rule: int) -> None:
        walk.rule = rule
        self._finish(walk, End(verdict, hook))

    def _finish(self, walk: Walk, end: End) -> None:
        kept = walk.oif
        if end.stage is None and (end.hook not in EGRESS_HOOKS or end.verdict is Verdict.UNDECIDED):
            kept = -1
        walk.end = end
        walk.done = Outcome(
            end.verdict, end.hook, end.stage, walk.rule, kept, walk.effects, walk.walked, walk.path
        )
