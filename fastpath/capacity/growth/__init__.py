"""How cost grows with a host: many hosts of one kind, side by side."""
