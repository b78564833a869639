"""Questions about a ruleset that go beyond one verdict."""
