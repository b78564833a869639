"""A host's way of a packet, written as small programs over conditions.

An :class:`Op` is a rule, or a step that the kernel takes outside the rules (a routing decision, the reassembly of
fragments), with a lowered condition, an action and effects on the packet. Chains are lists of ops. A :class:`Stage`
is a root chain together with every chain it can reach, all of whose conditions look at values *as they are when the
stage begins*: an effect that a later op could see ends the stage (see ``flow.py``).

Invariants: ops of one chain keep the order of its rules; ``ref`` is a rule id or -1; only ops with ``counted`` are
rules that the packet examines.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastpath.compiler.fields import Condition
from fastpath.packets.schema import Hook, Verdict


class Act(Enum):
    """What an op does when its condition holds."""

    NEXT = "next"
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    CALL = "call"
    """Walks a builtin chain: what it accepts goes on behind this op, what it drops has ended."""
    END = "end"
    """The way ends, or another stage goes on (``Op.end``)."""
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Effect:
    """A change to the packet: an effect code of ``kernels.codes`` with its operands (addresses as integers)."""

    code: int
    a: int = 0
    b: int = 0
    c: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """Where a way ends. With ``stage`` set it goes on there; ``oif`` is an interface id or -1."""

    verdict: Verdict = Verdict.ACCEPT
    hook: Hook = Hook.PREROUTING
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """One step of a chain.

    Attributes:
        condition: when it applies.
        act: what happens then.
        chain: key of the chain that JUMP, GOTO and CALL go to.
        ref: rule id, -1 for a step that is no rule.
        counted: it is a rule that is examined and counted.
        effects: changes to the packet, applied before the action.
        end: for END.
        oif: an interface id that routing has chosen here (None: says nothing).
        weight: how many examined rules it stands for, where that is not 1 for a counted one and 0 for others.
    """

    condition: Condition
    act: Act = Act.NEXT
    chain: str = ""
    ref: int = -1
    counted: bool = False
    effects: tuple[Effect, ...] = ()
    end: End | None = None
    oif: int | None = None
    weight: int = -1


@dataclass(frozen=True, slots=True)
class Block:
    """A chain of ops.

    Attributes:
        ops: its steps.
        policy: for a builtin chain, what happens at its end; None for user chains and for steps outside the rules.
        policy_ref: the policy's rule id, -1 where there is none.
        hook: where its verdicts count.
        decides: it belongs to the filter table (or is evaluated alone): the rule that accepts is the deciding one.
    """

    ops: tuple[Op, ...]
    hook: Hook
    policy: Act | None = None
    policy_ref: int = -1
    decides: bool = False


@dataclass(frozen=True)
class Stage:
    """A root chain and all chains that it reaches, by key."""

    name: str
    root: str
    blocks: dict[str, Block]
    linear: bool = False
    """True where an op sees an effect of an earlier one: only the linear walk is right."""
