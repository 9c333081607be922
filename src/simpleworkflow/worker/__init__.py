"""The worker: claims runs, executes them, and keeps their leases from outside the handlers' process."""

from simpleworkflow.worker.context import AsyncWorkflowRun, WorkflowRun
from simpleworkflow.worker.handlers import WorkflowExecutor
from simpleworkflow.worker.worker import Worker

__all__ = ["AsyncWorkflowRun", "Worker", "WorkflowExecutor", "WorkflowRun"]
