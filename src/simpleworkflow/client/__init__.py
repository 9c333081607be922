"""How programs submit, read, await and steer runs: ``Client``, and ``AsyncClient`` with the same verbs.

``verbs`` says once what each verb asks of the database and makes of the answers; ``client`` and
``async_client`` are thin faces over it; ``runners`` executes on connections of our own, ``foreign`` on one of
the caller's; ``waiting`` looks for everybody who waits.
"""

from simpleworkflow.client.async_client import AsyncClient, AsyncRunHandle
from simpleworkflow.client.client import Client, RunHandle

__all__ = ["AsyncClient", "AsyncRunHandle", "Client", "RunHandle"]
