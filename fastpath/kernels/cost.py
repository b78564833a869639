"""The linear walk once more, adding up what every test costs.

The stages are those of ``linear``, except that each rule is several ops in a row, one a test: an op that fails leaps
over the rest of its rule. So a packet pays for exactly the tests that the kernel makes, up to the first that fails;
what cannot be decided counts as failed, which is the baseline of ``rules_walked``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import helper, kernel
from fastpath.kernels.classify import class_of, classify
from fastpath.kernels.connection import connection_details, connection_states, first_states
from fastpath.kernels.effects import apply
from fastpath.kernels.layout import (
    A_CONNMARK,
    A_CTSTATE,
    A_IIF,
    A_NOTRACK,
    A_OIF,
    A_OLD_MARK,
    A_OLD_TOS,
    A_ROWS,
    A_TOS,
    A_TOUCHED,
    A_TTL,
    ACT_ACCEPT,
    ACT_CALL,
    ACT_DROP,
    ACT_END,
    ACT_GOTO,
    ACT_JUMP,
    ACT_NEXT,
    ACT_REJECT,
    ACT_RETURN,
    B_CONNMARK,
    B_CTDIR,
    B_CTSTATE,
    B_NOTRACK,
    B_OIF,
    B_TOS,
    B_TOUCHED,
    B_TTL,
    BLOCK,
    COUNTED,
    DEPTH,
    F_BASE,
    F_SKIP,
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
    O_VERDICT,
    P_CHANGING,
    P_LOCAL_ID,
    P_LOCAL_STAGE,
    P_NEED,
    P_TCP_LOOSE,
    S_BLOCK,
    V_DROP,
    V_REJECT,
    V_RETURN,
    V_UNDECIDED,
)
from fastpath.kernels.linear import _finish, _truth

FINAL = -1
N_FAIL, N_PASS, N_BYTES = range(3)  # columns of an op's numbers: nanoseconds, nanoseconds, bytes of its rule
N_COLUMNS = 3


@helper
def _walk(
    c: Any, t: Any, o: Any, aux: Any, classes: Any, names: Any, stage: Any, g: Any, k: Any, stack: Any,
    numbers: Any, skips: Any, ns: Any, read: Any, rule_ns: Any, examined: Any,
) -> Any:
    """A stage for one packet -> the next stage or FINAL."""
    block = t.stages[stage, S_BLOCK]
    at = t.blocks[block, L_FIRST]
    base = np.int64(-1)
    depth = 0
    while True:
        accept = False
        ref = np.int64(-1)
        if at >= t.blocks[block, L_END]:
            leave = True
        else:
            op = at
            at += 1
            leave = False
            ref = t.ops[op, O_REF]
            if skips[op] >= 0 and numbers[op, N_BYTES] > 0.0:  # the first op of a rule
                o.walked[g] += np.uint32(1)
                examined[ref] += 1
                read[g] += numbers[op, N_BYTES]
            holds = _truth(t, classes, op, k) == 1
            spent = numbers[op, N_PASS] if holds else numbers[op, N_FAIL]
            ns[g] += spent
            if ref >= 0:
                rule_ns[ref] += spent
            if not holds:
                at += max(0, skips[op])
                continue
            if t.ops[op, O_FLAGS] & COUNTED:
                o.rule_packets[ref] += 1
            act = t.ops[op, O_ACT]
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
                if t.ops[op, O_NEXT] >= 0:
                    return t.ops[op, O_NEXT]
                verdict = t.ops[op, O_VERDICT]
                if verdict == V_DROP or verdict == 5:
                    o.rule[g] = ref
                _finish(o, g, verdict, t.ops[op, O_HOOK])
                return FINAL
            else:
                verdict = V_DROP if act == ACT_DROP else (V_REJECT if act == ACT_REJECT else V_UNDECIDED)
                o.rule[g] = ref
                _finish(o, g, verdict, t.blocks[block, L_HOOK])
                return FINAL
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
            policy = t.blocks[base, L_POLICY]
            if policy == ACT_ACCEPT:
                accept = True
            else:
                o.rule[g] = returned if policy == ACT_RETURN else ref
                _finish(o, g, V_RETURN if policy == ACT_RETURN else V_DROP, t.blocks[base, L_HOOK])
                return FINAL
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


@kernel
def cost(
    n: Any, c: Any, t: Any, o: Any, ids: Any, names: Any, fixed: Any, numbers: Any, skips: Any,
    ns: Any, read: Any, state: Any, rule_ns: Any, examined: Any,
) -> None:
    """Walks n packets through linear stages.

    Args:
        n: number of packets in the chunk.
        c, t, o: packet columns, tables, output (whose src, dst, sport, dport, mark and flags are all written).
        ids: interface id of every interface code of the packets, shifted by one (entry 0 is "none").
        names: interface code to write for every interface id.
        fixed: bits of the bases that have one value in all packets.
        numbers: float64 of shape (ops, N_COLUMNS).
        skips: int32 of shape (ops,): ops of the same rule that follow, -1 for what is no rule.
        ns: float64 of shape (n,): nanoseconds of every packet, added to.
        read: float64 of shape (n,): bytes of the rules that it examines, added to.
        state: uint8 of shape (n,): the connection-tracking state in the end, where it is looked at.
        rule_ns, examined: float64 and int64 by rule id, added to.
    """
    fields = t.fields.shape[0]
    n_stages = t.stages.shape[0]
    classes = np.zeros((fields, BLOCK), np.uint32)
    aux = np.zeros((A_ROWS, BLOCK), np.uint32)
    lists = np.empty((n_stages + 1, BLOCK + 1), np.uint32)
    counts = np.zeros(n_stages + 1, np.int64)
    stack = np.empty((DEPTH, 3), np.int64)
    tcp_first, icmp_first = np.empty(256, np.uint32), np.empty(256, np.uint32)
    first_states(t.params[P_TCP_LOOSE], tcp_first, icmp_first)
    need = t.params[P_NEED]
    fixed &= ~t.params[P_CHANGING]
    local_id = np.uint32(t.params[P_LOCAL_ID])
    local_stage = t.params[P_LOCAL_STAGE]
    for b0 in range(0, n, BLOCK):
        m = min(BLOCK, n - b0)
        o.src[b0:b0 + m] = c.src[b0:b0 + m]
        o.dst[b0:b0 + m] = c.dst[b0:b0 + m]
        o.sport[b0:b0 + m] = c.sport[b0:b0 + m]
        o.dport[b0:b0 + m] = c.dport[b0:b0 + m]
        o.mark[b0:b0 + m] = c.mark[b0:b0 + m]
        o.rule[b0:b0 + m] = -1
        o.oif[b0:b0 + m] = -1
        o.walked[b0:b0 + m] = 0
        o.flags[b0:b0 + m] = 0
        for k in range(m):
            aux[A_IIF, k] = ids[c.iif[b0 + k] + 1]
        if need >> B_OIF & 1:
            for k in range(m):
                aux[A_OIF, k] = ids[c.oif[b0 + k] + 1] if c.oif.shape[0] >= n else 0
        if need >> B_CTSTATE & 1:
            connection_states(tcp_first, icmp_first, c.state, c.proto, c.tcp_flags, c.icmp_type, b0, m, aux[A_CTSTATE])
        if need >> B_CTDIR & 1:
            connection_details(c, aux, b0, m)
        if need >> B_CONNMARK & 1:
            for k in range(m):
                aux[A_CONNMARK, k] = c.connmark[b0 + k]
        if need >> B_TTL & 1:
            aux[A_TTL, 0:m] = c.ttl[b0:b0 + m]
        if need >> B_TOS & 1:
            aux[A_TOS, 0:m] = c.tos[b0:b0 + m]
        if need >> B_NOTRACK & 1:
            aux[A_NOTRACK, 0:m] = 0
        counts[:] = 0
        local = 0
        for k in range(m):
            here = local_stage + 1 if aux[A_IIF, k] == local_id and local_stage > 0 else 1
            lists[here, counts[here]] = np.uint32(k)
            counts[here] += 1
            local += here != 1
        if need >> B_TOUCHED & 1 and local > 0:
            for k in range(m):
                aux[A_TOUCHED, k] = 0
                aux[A_OLD_MARK, k] = c.mark[b0 + k]
                aux[A_OLD_TOS, k] = aux[A_TOS, k]
        for f in range(fields):
            base = t.fields[f, F_BASE]
            if t.fields[f, F_SKIP] or (fixed >> base & 1 and b0 > 0):
                continue
            if base == B_TOUCHED or base == B_NOTRACK:
                classes[f, 0:m] = class_of(t, f, np.uint64(0))
                continue
            classify(c, t, aux, fixed, f, b0, m, classes)
        for s in range(n_stages):
            for j in range(counts[s + 1]):
                at = np.int64(lists[s + 1, j])
                onward = _walk(c, t, o, aux, classes, names, s, b0 + at, at, stack, numbers, skips, ns, read, rule_ns,
                               examined)
                lists[onward + 1, counts[onward + 1]] = np.uint32(at)
                counts[onward + 1] += 1
        if need >> B_CTSTATE & 1:
            for k in range(m):
                state[b0 + k] = aux[A_CTSTATE, k]
