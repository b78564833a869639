"""Topologies from Compose files: read, interpolate, merge, and turn services into containers."""

from fastpath.docker.compose.read import read_compose

__all__ = ["read_compose"]
