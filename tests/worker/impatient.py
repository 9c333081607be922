"""``wf`` with a supervisor that waits a second for a child's start instead of a minute."""

from __future__ import annotations

import sys

from simpleworkflow.cli import main
from simpleworkflow.worker import supervisor

supervisor.STARTING_SECONDS_MAX = 1.5
supervisor.SPARE_SECONDS = 0.3

if __name__ == "__main__":
    sys.exit(main())
