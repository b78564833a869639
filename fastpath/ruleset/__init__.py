"""Rulesets: what they are, reading, printing and editing them."""
