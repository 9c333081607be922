"""Whether an installation is well, as findings: data for the command line and the page."""

from simpleworkflow.health.examination import examine
from simpleworkflow.health.finding import SEVERITIES, Finding, Severity, needs_attention
from simpleworkflow.health.path import examine_path

__all__ = ["SEVERITIES", "Finding", "Severity", "examine", "examine_path", "needs_attention"]
