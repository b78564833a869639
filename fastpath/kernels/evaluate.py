"""The kernel: packets in, fates out.

Works through a chunk in blocks that stay in cache. For each block: every tested value becomes a class; packets enter
their first stage; each stage looks its packets up level by level (or walks its ops one by one), applies what the
record reached says, and passes them to the next stage or writes their end.

All arguments are arrays, grouped in the named tuples below; nothing is allocated for each packet. ``codes`` has the
meaning of every number. Addresses are 32-bit words here; wider families bring further words of the same shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels import codes
from fastpath.kernels._jit import kernel
from fastpath.kernels.classify import class_of, classify
from fastpath.kernels.connection import connection_details, connection_states, first_states, has_ports
from fastpath.kernels.crossproduct import first_ops, write_ops
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
    B_CONNMARK,
    B_CTDIR,
    B_CTSTATE,
    B_IIF,
    B_NOTRACK,
    B_OIF,
    B_TOS,
    B_TOUCHED,
    B_TTL,
    BLOCK,
    DEPTH,
    E_RANKED,
    E_RANKS,
    E_RECORD,
    E_SLOT,
    F_BASE,
    F_KIND,
    F_SKIP,
    K_PRODUCT,
    K_SEGMENT,
    LINEAR,
    P_CHANGING,
    P_DPORT_SLOT,
    P_DST_SLOT,
    P_LOCAL_ID,
    P_LOCAL_STAGE,
    P_NEED,
    P_TCP_LOOSE,
    P_WRITTEN,
    Q_END,
    Q_OIF,
    Q_RULE,
    Q_WALKED,
    S_EFFECTS,
    S_KIND,
    S_LEAVES,
    S_LEVEL,
    S_LEVELS,
    S_LOOKUP,
    S_LOOKUPS,
    S_NEXT,
    S_RECORD,
    S_ROOT,
    S_ROWS,
    W_DPORT,
    W_DST,
    W_FLAGS,
    W_MARK,
    W_SPORT,
    W_SRC,
)
from fastpath.kernels.linear import walk


@kernel
def evaluate(n: Any, c: Any, t: Any, o: Any, ids: Any, names: Any, force: Any, fixed: Any) -> None:
    """Evaluates n packets.

    Args:
        n: number of packets in the chunk, fewer than 2**23 (so that a record's packets and bytes fit one integer).
        c, t, o: packet columns, tables, output.
        ids: interface id of every interface code of the packets, shifted by one (entry 0 is "none").
        names: interface code to write for every interface id.
        force: int64 of shape (stages, n) with the undecided choices to take, or of shape (1, 1) for none.
        fixed: bits of the bases that have one value in all packets.

    An output array shorter than n is a column that nobody asked for: it is not written. Where effects beyond constant
    addresses and ports are applied, or ops walked, all of them must be there.
    """
    fields = t.fields.shape[0]
    n_stages = t.stages.shape[0]
    classes = np.zeros((max(1, fields), BLOCK), np.uint32)
    aux = np.zeros((A_ROWS, BLOCK), np.uint32)
    words = np.empty(BLOCK, np.uint32)
    rest, places = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    room = np.empty((5, BLOCK), np.uint32)
    lists = np.empty((n_stages + 1, BLOCK + 1), np.uint32)  # row 0 takes those that have ended
    counts = np.zeros(n_stages + 1, np.uint64)
    to_apply = np.empty((BLOCK + 1, 2), np.uint32)
    stack = np.empty((DEPTH, 3), np.int64)
    tcp_first, icmp_first = np.empty(256, np.uint32), np.empty(256, np.uint32)
    first_states(t.params[P_TCP_LOOSE], tcp_first, icmp_first)
    need = t.params[P_NEED]
    written = t.params[P_WRITTEN]
    fixed &= ~t.params[P_CHANGING]
    local_id = np.uint32(t.params[P_LOCAL_ID])
    local_stage = t.params[P_LOCAL_STAGE]
    dst_slot, dport_slot = t.params[P_DST_SLOT], t.params[P_DPORT_SLOT]
    forcing = force.shape[0] > 1
    trying = o.choices.shape[0] > 1
    bytes_too = c.length.shape[0] >= n
    offset = np.uint32(0x7FFFFFFF)
    # Arrays as locals: taking one out of a tuple costs a reference count each time.
    stages, levels, rows, records, short, pool = t.stages, t.levels, t.rows, t.records, t.short, t.pool
    alternatives, field_table, leaves, ranks = t.alternatives, t.fields, t.leaves, t.cells32
    c_iif, c_src, c_dst, c_proto, c_sport, c_dport, c_mark = c.iif, c.src, c.dst, c.proto, c.sport, c.dport, c.mark
    c_length = c.length
    verdicts, hooks, rules, oifs, walked, flags = o.verdict, o.hook, o.rule, o.oif, o.walked, o.flags
    o_src, o_dst, o_sport, o_dport, o_mark = o.src, o.dst, o.sport, o.dport, o.mark
    counted = o.records
    choices, forced_rule, forced_hook = o.choices, o.forced_rule, o.forced_hook
    of_hook, of_rule, of_oif = hooks.shape[0] >= n, rules.shape[0] >= n, oifs.shape[0] >= n
    of_verdict, of_walked = verdicts.shape[0] >= n, walked.shape[0] >= n
    of_src = o_src.shape[0] >= n and written & W_SRC != 0
    of_dst = o_dst.shape[0] >= n and written & W_DST != 0
    of_sport = o_sport.shape[0] >= n and written & W_SPORT != 0
    of_dport = o_dport.shape[0] >= n and written & W_DPORT != 0
    of_mark = o_mark.shape[0] >= n and written & W_MARK != 0
    of_flags = flags.shape[0] >= n and written & W_FLAGS != 0
    silent = not (of_src or of_dst or of_sport or of_dport or of_mark or of_flags or of_rule)
    counting = counted.shape[0] >= records.shape[0]
    iifs = aux[A_IIF]
    zero = np.uint64(0)
    dst_row, dport_row = classes[dst_slot], classes[dport_slot]
    for b0 in range(0, n, BLOCK):
        m = min(BLOCK, n - b0)
        if of_src:
            o_src[b0:b0 + m] = c_src[b0:b0 + m]
        if of_dst:
            o_dst[b0:b0 + m] = c_dst[b0:b0 + m]
        if of_sport:
            o_sport[b0:b0 + m] = c_sport[b0:b0 + m]
        if of_dport:
            o_dport[b0:b0 + m] = c_dport[b0:b0 + m]
        if of_mark:
            o_mark[b0:b0 + m] = c_mark[b0:b0 + m]
        if of_rule:
            rules[b0:b0 + m] = -1
        if of_oif:
            oifs[b0:b0 + m] = -1
        if of_walked:
            walked[b0:b0 + m] = 0
        if of_flags:
            flags[b0:b0 + m] = 0
        begun = fixed if b0 > 0 else 0  # what has one value in all packets stands there from the first block
        if begun >> B_IIF & 1 == 0:
            for k in range(m):
                iifs[k] = ids[c_iif[b0 + k] + 1]
        if (need & ~begun) >> B_OIF & 1:
            for k in range(m):
                aux[A_OIF, k] = ids[c.oif[b0 + k] + 1]
        if (need & ~begun) >> B_CTSTATE & 1:
            connection_states(tcp_first, icmp_first, c.state, c_proto, c.tcp_flags, c.icmp_type, b0, m, aux[A_CTSTATE])
        if (need & ~begun) >> B_CTDIR & 1:
            connection_details(c, aux, b0, m)
        if need >> B_CONNMARK & 1:
            for k in range(m):
                aux[A_CONNMARK, k] = c.connmark[b0 + k]
        if (need & ~begun) >> B_TTL & 1:
            aux[A_TTL, 0:m] = c.ttl[b0:b0 + m]
        if (need & ~begun) >> B_TOS & 1:
            aux[A_TOS, 0:m] = c.tos[b0:b0 + m]
        if need >> B_NOTRACK & 1:
            aux[A_NOTRACK, 0:m] = 0
        first: Any = m
        local: Any = 0
        if local_stage > 0:
            first = 0
            for k in range(m):  # written to both lists, kept in one
                here_made = iifs[k] == local_id
                lists[1, first] = np.uint32(k)
                lists[local_stage + 1, local] = np.uint32(k)
                local += np.int64(here_made)
                first += np.int64(not here_made)
        elif b0 == 0:
            for k in range(m):
                lists[1, k] = np.uint32(k)
        counts[:] = np.uint64(0)
        counts[1] = first
        if local_stage > 0:
            counts[local_stage + 1] = local
        if need >> B_TOUCHED & 1 and local > 0:
            for k in range(m):
                aux[A_TOUCHED, k] = 0
                aux[A_OLD_MARK, k] = c_mark[b0 + k]
                aux[A_OLD_TOS, k] = aux[A_TOS, k]
        for f in range(fields):
            base = field_table[f, F_BASE]
            if field_table[f, F_KIND] != K_PRODUCT:
                if field_table[f, F_KIND] == K_SEGMENT:
                    continue
                if field_table[f, F_SKIP] or (fixed >> base & 1 and b0 > 0):
                    continue
                if base == B_TOUCHED or base == B_NOTRACK:
                    classes[f, 0:m] = class_of(t, f, zero)  # nothing has happened yet
                    continue
            classify(c, t, aux, fixed, f, b0, m, classes)
        begin = np.uint64(b0)
        for s in range(n_stages):
            count = np.int64(counts[s + 1])
            if count == 0:
                continue
            here = lists[s + 1]
            if stages[s, S_KIND] == LINEAR:
                for j in range(count):
                    at = np.int64(here[j])
                    choice = force[s, b0 + at] if forcing else 0
                    onward = walk(c, t, o, aux, classes, names, s, b0 + at, at, choice, stack)
                    lists[onward + 1, counts[onward + 1]] = np.uint32(at)
                    counts[onward + 1] += np.uint64(1)
                continue
            for x in range(stages[s, S_LOOKUP], stages[s, S_LOOKUP] + stages[s, S_LOOKUPS]):
                first_ops(t, x, classes, fixed, here, count, rest, places, room, words)
                write_ops(t, x, classes, here, count, words)
            here_rows = rows[stages[s, S_ROWS]:]
            first_level = stages[s, S_LEVEL]
            depth = stages[s, S_LEVELS]
            root = np.uint32(stages[s, S_ROOT])
            if depth == 0:
                for j in range(count):
                    words[j] = root
            else:
                row = classes[levels[first_level]]
                tests = np.uint32(np.int32(root) >> 31)
                start = root & offset
                for j in range(count):
                    words[j] = here_rows[start + (row[here[j]] & tests)]
            for level in range(1, depth):
                row = classes[levels[first_level + level]]
                for j in range(count):
                    w = words[j]
                    tests = np.uint32(np.int32(w) >> np.int32(31))
                    words[j] = here_rows[(w & offset) + (row[here[j]] & tests)]
            if stages[s, S_LOOKUPS]:
                here_leaves = leaves[stages[s, S_LEAVES]:]
                for j in range(count):
                    w = np.uint64(words[j])
                    op = np.uint64(classes[here_leaves[w, E_SLOT], here[j]])
                    rank = np.int64(ranks[np.uint64(here_leaves[w, E_RANKS]) + op]) & here_leaves[w, E_RANKED]
                    words[j] = np.uint32(here_leaves[w, E_RECORD] + rank)
            first_record = stages[s, S_RECORD]
            here_records, here_counted = records[first_record:], counted[first_record:]
            here_short = short[first_record:]
            following = stages[s, S_NEXT]
            ending = following == codes.FINAL
            onward_list = lists[following + 1 if following >= 0 else 0]
            tail = counts[following + 1] if following >= 0 else np.uint64(0)
            if trying or forcing:
                for j in range(count):
                    g = begin + np.uint64(here[j])
                    r = np.uint64(words[j])
                    if trying:
                        choices[s, g] = here_records[r, codes.R_ALTS] << 16 | here_records[r, codes.R_ALONE]
                    if forcing:
                        choice = force[s, g]
                        if choice > 0:
                            a = here_records[r, codes.R_ALT] + choice - 1
                            if forced_rule[g] < 0:
                                forced_rule[g] = alternatives[a, 1]
                                forced_hook[g] = alternatives[a, 2]
                            words[j] = np.uint32(alternatives[a, 0] - first_record)
            # One loop for each column: what is not asked for costs nothing, and records stay in cache.
            if counting and bytes_too:
                for j in range(count):
                    here_counted[np.uint64(words[j])] += 1 << 40 | np.int64(c_length[begin + np.uint64(here[j])])
            elif counting:
                for j in range(count):
                    here_counted[np.uint64(words[j])] += 1 << 40
            if of_walked:
                for j in range(count):
                    walked[begin + np.uint64(here[j])] += np.uint32(here_short[np.uint64(words[j]), Q_WALKED])
            if of_oif:
                for j in range(count):
                    g = begin + np.uint64(here[j])
                    out = here_short[np.uint64(words[j]), Q_OIF]
                    shown = names[max(out, 0)]
                    oifs[g] = shown if out >= 0 else oifs[g]
            if of_rule:
                for j in range(count):
                    g = begin + np.uint64(here[j])
                    rule = here_short[np.uint64(words[j]), Q_RULE]
                    rules[g] = rule if rule != codes.KEEP_RULE else rules[g]
            if of_verdict:
                for j in range(count):
                    verdicts[begin + np.uint64(here[j])] = here_short[np.uint64(words[j]), Q_END] & 255
            if of_hook:
                for j in range(count):
                    hooks[begin + np.uint64(here[j])] = here_short[np.uint64(words[j]), Q_END] >> 8 & 255
            if ending and (silent or stages[s, S_EFFECTS] == 0):
                continue
            affected: Any = 0
            for j in range(count):
                i = np.uint64(here[j])
                r = np.uint64(words[j])
                end = np.uint32(here_short[r, Q_END])
                # Appending without a branch: what is not appended is written and then overwritten.
                to_apply[affected, 0] = np.uint32(i)
                to_apply[affected, 1] = np.uint32(r)
                affected += np.int64(end >> np.uint32(30))
                if ending:
                    continue
                onward = end >> np.uint32(16) & np.uint32(0x3FFF)
                if following >= 0:
                    onward_list[tail] = np.uint32(i)
                    tail += np.uint64(onward != np.uint32(0))
                else:
                    place = counts[onward]
                    lists[onward, place] = np.uint32(i)
                    counts[onward] = place + np.uint64(1)
            if following >= 0:
                counts[following + 1] = tail
            for j in range(affected):
                i = np.uint64(to_apply[j, 0])
                r = np.uint64(to_apply[j, 1])
                g = begin + i
                fast = here_records[r, codes.R_FAST]
                if fast == 0:
                    apply(c, t, o, aux, classes, here_records[r, codes.R_EFFECT], here_records[r, codes.R_EFFECTS],
                          np.int64(g), np.int64(i))
                    continue
                address = pool[np.uint64(here_records[r, codes.R_DST]), 0]
                if fast == 2:
                    if of_src:
                        o_src[g] = address
                    continue
                if of_dst:
                    o_dst[g] = address
                to = here_records[r, codes.R_DST_CLASS]
                if to >= 0:
                    dst_row[i] = to
                port = here_records[r, codes.R_DPORT]
                if port >= 0 and has_ports(c_proto[g]):
                    if of_dport:
                        o_dport[g] = port
                    to = here_records[r, codes.R_DPORT_CLASS]
                    if to >= 0:
                        dport_row[i] = to
