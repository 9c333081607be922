"""Two executors for the types of one family, and a retry.

    python examples/python/billing_worker.py

An executor is a handler as an object: it may have settings and connections of its own.  A payment of
more than 10,000 fails on its first attempt and succeeds on the second.
"""

from functools import partial
from typing import Any

from simpleworkflow import Worker, WorkflowExecutor, WorkflowRun

say = partial(print, flush=True)


class InvoiceExecutor(WorkflowExecutor):
    """Writes an invoice."""

    def execute(self, run: WorkflowRun) -> dict[str, Any]:
        invoice_id, amount = run.payload["invoice_id"], run.payload["amount"]
        say(
            f"Generating invoice {invoice_id} for customer {run.payload['customer_id']} (amount: ${amount:.2f})"
        )
        say(f"Invoice {invoice_id} generated successfully")
        return {"invoice_id": invoice_id, "file": f"{invoice_id}.pdf"}


class PaymentExecutor(WorkflowExecutor):
    """Takes a payment through a gateway that is slow with large amounts."""

    def execute(self, run: WorkflowRun) -> dict[str, Any]:
        payment_id, amount = run.payload["payment_id"], run.payload["amount"]
        say(f"Processing payment {payment_id} (amount: ${amount:.2f}, method: {run.payload['method']})")
        if amount > 10_000 and run.attempt == 1:
            say("Error: payment gateway timeout (will retry)")
            raise TimeoutError("payment gateway timeout")
        # A run may execute twice, so a real gateway is given run.id as its idempotency key.
        say(f"Payment {payment_id} processed successfully")
        return {"payment_id": payment_id, "attempts": run.attempt}


worker = Worker(patterns=["billing.%"])
worker.register("billing.invoice.v1", InvoiceExecutor())
# Three seconds, so that you can watch it; without backoff= it is attempt² minutes.
worker.register("billing.payment.v1", PaymentExecutor(), backoff=3)

if __name__ == "__main__":
    say("Starting billing worker (handles all billing.* workflows)...")
    worker.run()
