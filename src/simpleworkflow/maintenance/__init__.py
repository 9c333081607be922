"""What every worker does besides running runs: each a service, ``run_once`` and the one common loop."""

from simpleworkflow.maintenance.board import LEASES, RUNS, Board, Look
from simpleworkflow.maintenance.expiry import Expiry
from simpleworkflow.maintenance.folding import Folding
from simpleworkflow.maintenance.operations import Operations
from simpleworkflow.maintenance.service import Asks, Rests, Service, repeat

__all__ = [
    "LEASES",
    "RUNS",
    "Asks",
    "Board",
    "Expiry",
    "Folding",
    "Look",
    "Operations",
    "Rests",
    "Service",
    "repeat",
]
