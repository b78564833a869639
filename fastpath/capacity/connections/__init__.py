"""How many connections conntrack holds, in which states, what memory they take, and when the table is full."""
