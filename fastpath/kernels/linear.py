"""The linear walk: one packet through the ops of a stage, one by one, as the kernel walks rules.

Slow and exact, for stages whose diagram would be too large, or whose rules see their own effects.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels import codes
from fastpath.kernels._jit import helper
from fastpath.kernels.effects import apply
from fastpath.kernels.layout import (
    ACT_ACCEPT,
    ACT_CALL,
    ACT_DROP,
    ACT_END,
    ACT_GOTO,
    ACT_JUMP,
    ACT_NEXT,
    ACT_REJECT,
    ACT_RETURN,
    COUNTED,
    H_FORWARD,
    L_DECIDES,
    L_END,
    L_FIRST,
    L_HOOK,
    L_POLICY,
    L_POLICY_REF,
    O_ACT,
    O_BLOCK,
    O_EFFECT,
    O_EFFECTS,
    O_FLAGS,
    O_HOOK,
    O_NEXT,
    O_OIF,
    O_REF,
    O_TERM,
    O_TERMS,
    O_VERDICT,
    QUIET,
    S_BLOCK,
    V_DROP,
    V_REJECT,
    V_RETURN,
    V_UNDECIDED,
)


@helper
def _truth(t: Any, classes: Any, op: Any, k: Any) -> Any:
    """Of a linear op's condition: 0 no, 1 yes, 2 perhaps."""
    perhaps = 0
    first = t.ops[op, O_TERM]
    for term in range(first, first + t.ops[op, O_TERMS]):
        holds = True
        start = t.terms[term, 0]
        for x in range(start, start + t.terms[term, 1]):
            value = np.int64(classes[t.tests[x, 0], k])
            if t.sets[t.tests[x, 1] + (value >> 3)] >> (value & 7) & 1 == 0:
                holds = False
                break
        if holds:
            if t.terms[term, 2] == 0:
                return 1
            perhaps = 2
    return perhaps


@helper
def _finish(o: Any, g: Any, verdict: Any, hook: Any) -> None:
    o.verdict[g] = verdict
    o.hook[g] = hook
    if hook < H_FORWARD or verdict == V_UNDECIDED:
        o.oif[g] = -1


@helper
def walk(
    c: Any, t: Any, o: Any, aux: Any, classes: Any, names: Any, stage: Any, g: Any, k: Any, force: Any, stack: Any
) -> Any:
    """A linear stage for one packet -> the next stage or FINAL. Bit j of `force`: the j-th undecided rule matches."""
    block = t.stages[stage, S_BLOCK]
    at = t.blocks[block, L_FIRST]
    base = np.int64(-1)
    depth = 0
    choices = 0
    size = np.int64(c.length[g]) if c.length.shape[0] > g else np.int64(0)
    while True:
        accept = False
        ref = np.int64(-1)
        if at >= t.blocks[block, L_END]:
            leave = True
        else:
            op = at
            at += 1
            leave = False
            o.walked[g] += np.uint32(t.ops[op, O_FLAGS] & COUNTED)
            truth = _truth(t, classes, op, k)
            act = t.ops[op, O_ACT]
            ref = t.ops[op, O_REF]
            if truth == 2:
                truth = 0
                if t.ops[op, O_FLAGS] & QUIET == 0:
                    if choices < 62 and (force >> choices) & 1:
                        truth = 1
                        if o.forced_rule[g] < 0:
                            o.forced_rule[g] = ref
                            o.forced_hook[g] = t.blocks[block, L_HOOK]
                    choices += 1
            if truth == 0:
                continue
            if t.ops[op, O_FLAGS] & COUNTED:
                o.rule_packets[ref] += 1
                o.rule_bytes[ref] += size
            if t.ops[op, O_EFFECTS] > 0:
                apply(c, t, o, aux, classes, t.ops[op, O_EFFECT], t.ops[op, O_EFFECTS], g, k)
            if t.ops[op, O_OIF] >= 0:
                o.oif[g] = names[t.ops[op, O_OIF]]
            if act == ACT_NEXT:
                continue
            if act == ACT_ACCEPT:
                accept = True
            elif act == ACT_RETURN:
                leave = True
            elif act == ACT_JUMP or act == ACT_CALL:
                stack[depth, 0] = block
                stack[depth, 1] = at
                stack[depth, 2] = base
                depth += 1
                block = t.ops[op, O_BLOCK]
                at = t.blocks[block, L_FIRST]
                if act == ACT_CALL:
                    base = block
                continue
            elif act == ACT_GOTO:
                block = t.ops[op, O_BLOCK]
                at = t.blocks[block, L_FIRST]
                continue
            elif act == ACT_END:
                if o.choices.shape[0] > 1:
                    o.choices[stage, g] = choices << 16 | choices
                if t.ops[op, O_NEXT] >= 0:
                    return t.ops[op, O_NEXT]
                verdict = t.ops[op, O_VERDICT]
                if verdict == V_DROP or verdict == 5:
                    o.rule[g] = ref
                _finish(o, g, verdict, t.ops[op, O_HOOK])
                return codes.FINAL
            else:
                verdict = V_DROP if act == ACT_DROP else (V_REJECT if act == ACT_REJECT else V_UNDECIDED)
                if o.choices.shape[0] > 1:
                    o.choices[stage, g] = choices << 16 | choices
                o.rule[g] = ref
                _finish(o, g, verdict, t.blocks[block, L_HOOK])
                return codes.FINAL
        if leave:
            inner = base < 0 or (depth > 0 and stack[depth - 1, 2] == base)
            if inner:
                depth -= 1
                block = stack[depth, 0]
                at = stack[depth, 1]
                base = stack[depth, 2]
                continue
            returned = ref
            ref = t.blocks[base, L_POLICY_REF]
            if ref >= 0:
                o.rule_packets[ref] += 1
                o.rule_bytes[ref] += size
            policy = t.blocks[base, L_POLICY]
            if policy == ACT_ACCEPT:
                accept = True
            else:
                if o.choices.shape[0] > 1:
                    o.choices[stage, g] = choices << 16 | choices
                o.rule[g] = returned if policy == ACT_RETURN else ref
                _finish(o, g, V_RETURN if policy == ACT_RETURN else V_DROP, t.blocks[base, L_HOOK])
                return codes.FINAL
        if accept:
            if base >= 0:
                if t.blocks[base, L_DECIDES]:
                    o.rule[g] = ref
                here = base
                while base == here:
                    depth -= 1
                    block = stack[depth, 0]
                    at = stack[depth, 1]
                    base = stack[depth, 2]
