"""Where everything lies: the numbers of bases and columns, and the groups of arrays that kernels take.

The compiler writes tables in this layout (``compiler.tables``); nothing here needs numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

BLOCK = 8192
"""Packets worked on at a time."""

BULK_BLOCK = 4096
"""Packets that the bulk kernel works on at a time."""

DEPTH = 256
"""Chains that may be open at once in a linear walk."""

# Bases as numbers, in the order of their names in the compiler's field table.
(
    B_IIF, B_SRC, B_DST, B_PROTO, B_SPORT, B_DPORT, B_TCP_FLAGS, B_ICMP, B_FRAG, B_TTL, B_TOS, B_LENGTH, B_MARK,
    B_CONNMARK, B_CTSTATE, B_CTDIR, B_CTSTATUS, B_ORIGSRC, B_ORIGSPORT, B_ORIGDST, B_ORIGDPORT, B_OIF, B_MAC,
    B_PKTTYPE, B_UID, B_GID, B_TOUCHED, B_NOTRACK, B_EXTRA, B_SEGMENT,
) = range(30)

# Rows of the scratch values of a block, and the base that each holds.
(
    A_IIF, A_OIF, A_CTSTATE, A_CTDIR, A_CTSTATUS, A_CONNMARK, A_TTL, A_TOS, A_TOUCHED, A_ORIGSRC, A_ORIGSPORT,
    A_ORIGDST, A_ORIGDPORT, A_NOTRACK, A_OLD_MARK, A_OLD_TOS,
) = range(16)
A_ROWS = 16
IN_BLOCK = (
    B_IIF, B_OIF, B_CTSTATE, B_CTDIR, B_CTSTATUS, B_CONNMARK, B_TTL, B_TOS, B_TOUCHED, B_ORIGSRC, B_ORIGSPORT,
    B_ORIGDST, B_ORIGDPORT, B_NOTRACK,
)

# Columns of the field table.
F_BASE, F_MASK, F_KIND, F_TABLE, F_COUNT, F_EXTRA, F_SKIP = range(7)
F_COLUMNS = 32
F_CLASSES = 30  # number of classes
K_DIRECT, K_TRIE, K_SEARCH, K_PRODUCT, K_SEGMENT, K_PAGES, K_RANKS = range(7)
F_PARTS = 6  # K_PRODUCT: up to 12 pairs of (base, table of its classes times their stride) from here on
F_SPLIT, F_LAST, F_WORDS = range(7, 10)  # K_PAGES: bits of the steps; place of the last one's pages, their words
F_LOW, F_BOUNDS, F_OF_RANK, F_OF_RANK_WIDE = range(7, 11)  # K_RANKS: bits below regions, places in the cells

# Columns of the stage table.
(
    S_KIND, S_LEVEL, S_LEVELS, S_ROWS, S_ROOT, S_RECORD, S_BLOCK, S_NEXT, S_LOOKUP, S_LOOKUPS, S_LEAVES, S_EFFECTS,
) = range(12)
S_COLUMNS = 12  # S_NEXT: the one stage that the records lead to, FINAL for none, SEVERAL; S_EFFECTS: some have effects
SEVERAL = -2

# Columns of the short records, which hold what every packet needs of its record.
Q_RULE, Q_WALKED, Q_OIF, Q_END = range(4)
Q_COLUMNS = 4  # Q_END: verdict | hook << 8 | (next stage + 1) << 16, and AFFECTED where there are effects
AFFECTED = 1 << 30
DIAGRAM, LINEAR = 0, 1

# Columns of the tables of linear stages.
L_FIRST, L_END, L_POLICY, L_POLICY_REF, L_HOOK, L_DECIDES = range(6)
COUNTED, QUIET = 1, 2  # O_FLAGS: a rule that is examined; whether it matches makes no difference to the packet
L_COLUMNS, O_COLUMNS = 6, 12
O_TERM, O_TERMS, O_ACT, O_BLOCK, O_REF, O_FLAGS, O_EFFECT, O_EFFECTS, O_NEXT, O_VERDICT, O_HOOK, O_OIF = range(12)
(
    ACT_NEXT, ACT_ACCEPT, ACT_DROP, ACT_REJECT, ACT_RETURN, ACT_JUMP, ACT_GOTO, ACT_CALL, ACT_END, ACT_UNDECIDED,
) = range(10)

# Cross products: which op of a segment matches first.
C_SLOT, C_KIND_SLOT, C_KINDS, C_MERGE, C_MERGES, C_GROUP, C_GROUPS, C_REST, C_MISS, C_HOLDS, C_WORDS = range(11)
C_COLUMNS = 11  # C_SLOT, C_KIND_SLOT: class rows for the op and its kind; C_REST: classes of the merged fields
M_SLOT, M_TABLE, M_WIDTH, M_PLACES = range(4)
M_COLUMNS = 4  # a merge: class so far * M_WIDTH + class of the field -> class of both
(
    G_SHAPE, G_A, G_A_MAP, G_B, G_B_MAP, G_WIDTH, G_TABLE, G_TABLE_WIDE, G_RESULT, G_FOUND, G_FOUND_WIDE, G_LISTS,
) = range(12)
G_COLUMNS = 12
SHAPE_NONE, SHAPE_ONE, SHAPE_DENSE, SHAPE_RUNS, SHAPE_CANDIDATES, SHAPE_GROUPED = range(6)
# Candidates: the maps give words; G_TABLE: grid of G_WIDTH columns, none where that is 0; G_FOUND, G_LISTS: records of
# the lists of both keys, -1 for none.
RESULT_DIRECT, RESULT_LIST, RESULT_GROUPED = range(3)  # grouped: G_TABLE, G_FOUND: rows of two numbers

# Leaves of a stage with segments: the record is the first one plus the rank of the op among those of its kind.
E_RECORD, E_SLOT, E_RANKS, E_RANKED = range(4)
E_COLUMNS = 4

# Numbers of an engine.
P_LOCAL_ID, P_LOCAL_STAGE, P_NEED, P_TCP_LOOSE, P_DST_SLOT, P_DPORT_SLOT, P_CHANGING, P_WRITTEN = range(8)
W_MARK, W_SPORT, W_FLAGS, W_SRC, W_DST, W_DPORT = 1, 2, 4, 8, 16, 32
V_DROP, V_REJECT, V_UNDECIDED, V_RETURN = 3, 4, 6, 8
H_FORWARD = 3  # hooks from here on know an egress interface
CT_INVALID, CT_UNTRACKED = 4, 5


# Passes of the bulk kernel (``bulk.py``): what they write is a row of classes, places, words or records, or a column.
(
    OP_STEP, OP_ROOTS, OP_BYTE, OP_CODE, OP_SUMS, OP_CLASSES, OP_HALF, OP_WORD, OP_PAGED, OP_WORDS, OP_RANK, OP_ICMP,
    OP_CONSTANT, OP_ENTER, OP_MERGE, OP_LOOK_UP, OP_RUNS, OP_DIRECT, OP_LISTS, OP_RANKED, OP_ENDS, OP_FATES,
    OP_VERDICT, OP_HOOK, OP_RULE, OP_OIF, OP_WALKED, OP_WALKED_BOTH, OP_COPY, OP_ADDRESS, OP_PORT, OP_COUNT, OP_AFFECT,
    OP_GRID, OP_CANDIDATES, OP_GROUPED,
) = range(36)

# Packet columns by their width, as the bulk kernel has them.
OCTETS = ("proto", "state", "tcp_flags", "icmp_type", "icmp_code", "frag", "ttl", "tos", "pkttype")
HALVES = ("sport", "dport", "length")
WIDES = ("src", "dst", "mark", "uid", "gid")
COL_PROTO, COL_STATE, COL_TCP_FLAGS, COL_ICMP_TYPE, COL_ICMP_CODE = range(5)
COL_SRC, COL_DST, COL_MARK, COL_SPORT, COL_DPORT = range(5)
COL_IIF, COL_OIF = 0, 1
COPIED = ("src", "dst", "mark", "sport", "dport")
FATE_PLAIN, FATE_DNAT, FATE_HARD = range(3)


class Fates(NamedTuple):
    """What the records of the bulk kernel's places on the way mean, one after the other.

    Attributes:
        enter: the word that a record goes on with, uint32.
        verdict, hook, rule, oif, walked: what result columns show.
        packed: rule, oif, verdict and hook as one uint64 from the lowest bits on, of 32, 16, 8 and 8 bits.
        ends: for each record `packed`; walked and source address, 32 bits each; destination address and port, 32 and 16
            bits, and 16 more that are not 0 for hard records; nothing. Addresses and ports are 0 where NAT leaves them.
            uint64, flat.
        kind: FATE_DNAT, FATE_HARD for what the general kernel must do, FATE_PLAIN for all else.
        dnat: address, its class, port and its class, -1 for no port; int64 of shape (records, 4).
        source, target, port: addresses and destination port after NAT, 0 for what it leaves, uint32; the latter two
            where no AFFECT pass rewrites them.
        leaves: leaves of stages with segments, int64 of columns E_*, flat.
        paged: the last pages of an address or the table of a product, with the word behind the first level instead of
            the class, uint32.
    """

    enter: Any
    verdict: Any
    hook: Any
    rule: Any
    oif: Any
    walked: Any
    packed: Any
    ends: Any
    kind: Any
    dnat: Any
    source: Any
    target: Any
    port: Any
    leaves: Any
    paged: Any


class Room(NamedTuple):
    """What the passes of a program write for each other.

    Attributes:
        rows: classes, words and the like, uint32 of shape (rows, BULK_BLOCK).
        sums: of small fields, uint16 of shape (BULK_BLOCK,).
        lists: places of packets, uint32 of shape (2, BULK_BLOCK + 1).
        wide: uint64 of shape (3, BULK_BLOCK).
    """

    rows: Any
    sums: Any
    lists: Any
    wide: Any


class BulkOutput(NamedTuple):
    """Result columns of a chunk; one that is not asked for has length 1."""

    verdict: Any
    hook: Any
    rule: Any
    oif: Any
    src: Any
    dst: Any
    sport: Any
    dport: Any
    mark: Any
    walked: Any


class Columns(NamedTuple):
    """Packet columns of a chunk; a column that no field reads has length 1."""

    iif: Any
    src: Any
    dst: Any
    proto: Any
    sport: Any
    dport: Any
    tcp_flags: Any
    icmp_type: Any
    icmp_code: Any
    frag: Any
    ttl: Any
    tos: Any
    length: Any
    mark: Any
    connmark: Any
    state: Any
    ctdir: Any
    ctstatus: Any
    ctorigdst: Any
    ctorigdstport: Any
    oif: Any
    mac_src: Any
    pkttype: Any
    uid: Any
    gid: Any
    extra: Any


class Tables(NamedTuple):
    """The compiled host (see ``compiler.tables``)."""

    params: Any
    fields: Any
    maps: Any
    trie: Any
    bounds: Any
    stages: Any
    levels: Any
    rows: Any
    records: Any
    short: Any
    effects: Any
    pool: Any
    alternatives: Any
    blocks: Any
    ops: Any
    terms: Any
    tests: Any
    sets: Any
    lookups: Any
    merges: Any
    groups: Any
    cells16: Any
    cells32: Any
    leaves: Any


class Output(NamedTuple):
    """Result columns of a chunk, counts by record and by rule, and what is needed to try undecided rules."""

    verdict: Any
    hook: Any
    rule: Any
    oif: Any
    src: Any
    dst: Any
    sport: Any
    dport: Any
    mark: Any
    walked: Any
    flags: Any
    records: Any
    rule_packets: Any
    rule_bytes: Any
    choices: Any
    forced_rule: Any
    forced_hook: Any
