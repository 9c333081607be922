"""What the network does to one party: faults of the proxy between it and the server."""

from __future__ import annotations

import threading
from typing import Literal

from chaos.parties import Party
from chaos.plan import Fault
from faults.proxy import Direction

DIRECTIONS: tuple[Direction, ...] = ("both", "to_server", "to_client")
# The statement whose answer is lost: each party's own ones.
WORTH_SWALLOWING = {
    "service-1": r"\.(exchange|finish|heartbeat|expire)\(",
    "service-2": r"\.exchange\(",
    "program": r"\.(exchange|heartbeat)\(",
    "sync": r"\.submit",
    "async": r"\.submit",
    "sql": r"^(insert|commit)",
    "operator": r"\.(cancel|reopen)\(|^update",
}
SWALLOW_SECONDS = 3


def black_hole(party: Party, fault: Fault, healing: threading.Event) -> None:
    """Lose all that is sent, in one direction or both, and close nothing."""
    party.proxy.black_hole(DIRECTIONS[fault.target % 3])
    healing.wait(fault.seconds)
    party.proxy.heal()


def reset(party: Party, fault: Fault, healing: threading.Event) -> None:
    """Let both sides see a reset."""
    party.proxy.reset()


def delay(party: Party, fault: Fault, healing: threading.Event) -> None:
    """Let each message take 20 to 200 ms longer."""
    party.proxy.delay(0.02 * (1 + fault.target % 10))
    healing.wait(fault.seconds)
    party.proxy.heal()


def half_open(party: Party, fault: Fault, healing: threading.Event) -> None:
    """Let one side see the end, and the other nothing."""
    if fault.target % 2:
        party.proxy.lose_server()
    else:
        party.proxy.lose_client()
    healing.wait(fault.seconds)
    party.proxy.heal()


def swallow(party: Party, fault: Fault, healing: threading.Event) -> str | None:
    """Let the server do a statement whose answer never comes, or never get it; then cut the line, or say nothing."""
    then: Literal["cut", "silence"] = "silence" if fault.target % 3 == 0 else "cut"
    what: Literal["answer", "query"] = "query" if fault.target % 5 == 0 else "answer"
    lost = party.proxy.swallow(WORTH_SWALLOWING[party.name], nth=1 + fault.target % 4, then=then, what=what)
    has_happened = lost.wait(SWALLOW_SECONDS)
    if then == "silence":
        healing.wait(fault.seconds)
    party.proxy.heal()
    return None if has_happened else "missed: the statement did not come"
