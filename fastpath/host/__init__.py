"""Hosts: interfaces, addresses, routes, sysctls and ipsets, how they are read, and single look-ups in them."""
