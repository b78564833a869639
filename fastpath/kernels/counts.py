"""Counts of records to counts of rules.

Kernels count packets and bytes of a record in one number of 64 bits, and records of places, not rules: a record stands
for all rules that count on the way to it. Most records of a batch are met by nobody, so the others are looked for here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastpath.kernels._jit import kernel


@kernel
def add_counts(
    counts: Any, records: Any, path_start: Any, path_rules: Any, rule_packets: Any, rule_bytes: Any
) -> None:
    """Adds what was counted to the rules on the paths of the records.

    Args:
        counts: packets << 40 | bytes, int64 of shape (lanes, len(records) or more); a record's are those of all lanes.
        records: int64, the record that each place stands for, -1 for none.
        path_start, path_rules: int64 and int32, the rules by record (`compiler.tables.Compiled`).
        rule_packets, rule_bytes: int64, added to.
    """
    low = np.int64((1 << 40) - 1)
    for k in range(len(records)):
        packets = np.int64(0)
        octets = np.int64(0)
        for lane in range(counts.shape[0]):
            packets += counts[lane, k] >> np.int64(40)
            octets += counts[lane, k] & low
        if packets and records[k] >= 0:
            for at in range(path_start[records[k]], path_start[records[k] + 1]):
                rule_packets[path_rules[at]] += packets
                rule_bytes[path_rules[at]] += octets
