"""The compiled engine: compile a host once, evaluate millions of packets."""

from fastpath.compiler.config import Config
from fastpath.engine.core import Engine, compile, load_engine

__all__ = ["Config", "Engine", "compile", "load_engine"]
