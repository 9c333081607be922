"""``module:worker``: find the worker that a command line names."""

from __future__ import annotations

import importlib
import os
import sys

from simpleworkflow.errors import WorkerNotFound
from simpleworkflow.worker.worker import Worker

__all__ = ["check_target", "load_worker"]


def load_worker(target: str) -> Worker:
    """Return the worker named ``module:name``, or ``module`` for its ``worker``; imports the module.

    Raises:
        WorkerNotFound: the module cannot be imported, or has no such worker; the message says why.
    """
    module_name, name = check_target(target)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise WorkerNotFound(
            f"worker {target!r}: {_last_line(error)}; run it where the module can be imported"
        ) from error
    except AttributeError as error:
        raise WorkerNotFound(
            f"worker {target!r}: {_last_line(error)}; name the Worker object after the colon"
        ) from error
    except (Exception, SystemExit) as error:
        raise WorkerNotFound(
            f"worker {target!r}: importing it raised {type(error).__name__}: {_last_line(error)}"
        ) from error
    if not isinstance(found, Worker):
        raise WorkerNotFound(f"worker {target!r} is {type(found).__name__}, expected a simpleworkflow.Worker")
    return found


def check_target(target: str) -> tuple[str, str]:
    """Return the module and the name that ``target`` says, unseen.

    Raises:
        WorkerNotFound: it is not written like that.
    """
    module_name, _, name = target.partition(":")
    name = name or "worker"
    if not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise WorkerNotFound(f"expected MODULE:WORKER such as app.workers:worker, got {target!r}")
    return module_name, name


def _last_line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).splitlines()[-1].split())
