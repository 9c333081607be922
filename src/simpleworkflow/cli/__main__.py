"""``python -m simpleworkflow.cli`` is ``wf`` where that is not on the PATH."""

from simpleworkflow.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
