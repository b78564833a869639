"""Numbers that the tables and the kernels agree on.

Plain integers, so that both sides can use them: the compiler writes them into tables, numba freezes them as
constants. Changing one changes the format of saved tables.
"""

from __future__ import annotations

# Effects of a record: (code, a, b, c).
DST_NAT = 1  # destination NAT to pool[a]..pool[b] (a -1: the address stays), ports as packed in c
SRC_NAT = 2  # source NAT likewise; what is inside the ranges already stays
FORGET = 3  # rule = -1: what filter OUTPUT accepted does not decide about a looped packet
CONFIRM = 4  # ctstatus |= CONFIRMED, with a connection
MARK = 5  # mark = mark & a ^ b
CONNMARK = 6  # connmark = connmark & a ^ b, with a connection
MARK_RESTORE = 7  # mark = mark & a ^ connmark & b, with a connection
MARK_SAVE = 8  # connmark = connmark & a ^ mark & b, with a connection
TTL_SET = 9  # ttl = a
TTL_ADD = 10  # ttl = min(255, ttl + a)
TTL_SUB = 11  # ttl = max(0, ttl - a)
TOS = 12  # tos = tos & a ^ b
NOTRACK = 13  # ctstate = UNTRACKED
NOTRACK_LATE = 16  # likewise, without a connection only
SET_OIF = 17  # the egress interface that OUTPUT rules see = a
NOTE_MARK = 19  # remembers mark and tos as they are before mangle OUTPUT
DST_MAP = 14  # dst = dst & a | b
SRC_MAP = 15  # src = src & a | b
CHOICE = 18  # the kernel may choose: sets the flag
TOUCH = 22  # touched |= 1 where mark or tos differ from what NOTE_MARK saw, |= 2 where dst is not the arrived one

# Ports of NAT, packed: first | last << 16 | base << 32 | flags.
HAS_PORTS = 1 << 48
HAS_BASE = 1 << 49
RANDOM = 1 << 50

# What a record says happens next.
KEEP_RULE = -2  # the rule column keeps what an earlier stage wrote
FINAL = -1  # no next stage

# Layout of a record: int32 columns.
R_NEXT = 0  # next stage, or FINAL
R_VERDICT = 1
R_HOOK = 2
R_RULE = 3  # rule id, -1 for none, KEEP_RULE
R_OIF = 4  # interface id (0 is no interface), -1 where the one written before stays
R_WALKED = 5  # rules examined in this stage
R_EFFECT = 6  # first effect
R_EFFECTS = 7  # number of effects
R_ALT = 8  # first alternative
R_ALTS = 9  # number of alternatives
R_FAST = 10  # 1: the only effect is a constant DNAT whose classes are known; 2: a constant source nobody looks at
R_DST = 11  # its address pool index
R_DST_CLASS = 12
R_DPORT = 13  # its port, or -1
R_DPORT_CLASS = 14
R_ALONE = 15  # how many of the alternatives, the first ones, take one undecided rule only
R_COLUMNS = 16
