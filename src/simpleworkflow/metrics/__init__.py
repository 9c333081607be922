"""What workers and the server tell Prometheus; nothing here imports its library before it is asked to serve."""

from simpleworkflow.metrics.tallies import Tallies
from simpleworkflow.metrics.tally import Tally

__all__ = ["Tallies", "Tally"]
