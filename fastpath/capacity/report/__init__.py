"""Everything that a planner wants to know of a host and its traffic, gathered, and as a page to hand on."""
