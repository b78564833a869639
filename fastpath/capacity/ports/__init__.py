"""Source ports that SNAT and MASQUERADE use up: how many, how likely a connection gets none, and at what rate."""
