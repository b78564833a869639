"""A cell's reason in one sentence: the deciding rule, the route, the userland proxy, or that nobody is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpath.docker.reach.parties import Target
from fastpath.packets.schema import Hook, Leg, Outcome, Verdict

if TYPE_CHECKING:
    from fastpath.docker.reach.matrix import Reachability


def sentence(matrix: Reachability, row: int, column: int) -> str:
    """See :meth:`Reachability.reason`."""
    from fastpath.docker.reach.matrix import How

    how, target = How(int(matrix.how[row, column])), matrix.targets[column]
    listener = matrix.listener(row, column)
    if how is How.BESIDE:
        return matrix.beside(row, column)
    if how is How.PROXY and listener is not None:
        return (f"{listener.process} answers on {listener.address}:{listener.port} and connects to "
                f"{listener.container_address}:{listener.container_port}")
    if how is How.PROXY_STOPPED and listener is not None:
        return (f"{listener.process} answers on {listener.address}:{listener.port}, but its own connection to "
                f"{listener.container_address}:{listener.container_port} fails: {matrix.proxied(row, column)}")
    if how is How.HELD and listener is not None:
        return (f"delivered to the host, where {listener.process} holds port {listener.port} without answering "
                "(there is no userland proxy)")
    if how is How.NOBODY:
        return f"delivered to the host, where nobody listens on {_mapped(matrix, row, column)}"
    if how is How.ELSEWHERE:
        whose = f"{listener.container}'s proxy" if listener is not None else _mapped(matrix, row, column)
        return f"leads to {whose}, not to {target.container or 'the host'}"
    if matrix.kept("outcome", row, column) == Outcome.WORKS:
        return _works(matrix, row, column, target)
    return _fails(matrix, row, column)


def _works(matrix: Reachability, row: int, column: int, target: Target) -> str:
    accepted = matrix.kept("accepted", row, column)
    by = f"let through by {matrix.engines.refs[accepted]}" if accepted >= 0 else "no filter rule stands in its way"
    if target.kind == "host-other":
        return f"delivered to the host, {by}; whether something listens there is not known"
    if target.kind == "host":
        return f"delivered to the host, whose stack {target.container} uses; {by}"
    sent = matrix.sent(row, column)
    assert sent is not None
    parts = []
    if (matrix.kept("dst", row, column), matrix.kept("dport", row, column)) != (int(sent.dst), target.port):
        parts.append(f"translated to {_mapped(matrix, row, column)}")
    if matrix.kept("src", row, column) != int(sent.src):
        parts.append(f"with source {_dotted(matrix.kept('src', row, column))}")
    return "; ".join([*([" ".join(parts)] if parts else []), by])


def _fails(matrix: Reachability, row: int, column: int) -> str:
    from fastpath.analysis.flow_result import stopped_text

    rule = matrix.kept("rule", row, column)
    if matrix.kept("outcome", row, column) == Outcome.STOPPED and rule >= 0:
        return stopped_text(
            Leg(matrix.kept("leg", row, column)), Verdict(matrix.kept("verdict", row, column)),
            Hook(matrix.kept("hook", row, column)), str(matrix.engines.refs[rule]))
    from fastpath.analysis.flows import evaluate_flows

    packet = matrix.packet(row, column)
    assert packet is not None
    return evaluate_flows(matrix.host, packet, engine=matrix.engines).reason(0)


def _mapped(matrix: Reachability, row: int, column: int) -> str:
    return f"{_dotted(matrix.kept('dst', row, column))}:{matrix.kept('dport', row, column)}"


def _dotted(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4))
