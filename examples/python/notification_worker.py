"""One async executor for a whole family of types.

    python examples/python/notification_worker.py

Async handlers share one event loop, so that a hundred of them may wait for the network at once.
"""

import asyncio
from functools import partial
from typing import Any

from simpleworkflow import AsyncWorkflowRun, Worker, WorkflowExecutor

say = partial(print, flush=True)

PATTERNS = ["notify.%"]


class NotificationExecutor(WorkflowExecutor):
    """Sends email, SMS and push notifications."""

    async def execute(self, run: AsyncWorkflowRun) -> None:
        say(f"Processing notification: {run.type}")
        match run.type:
            case "notify.email.v1":
                await self.send_email(run.payload)
            case "notify.sms.v1":
                await self.send_sms(run.payload)
            case "notify.push.v1":
                await self.send_push(run.payload)
            case _:
                raise NotImplementedError(f"no notification is called {run.type}")

    async def send_email(self, email: dict[str, Any]) -> None:
        say(f"Sending email to {email['to']}: {email['subject']}")
        await asyncio.sleep(0.1)
        say(f"Email sent successfully to {email['to']}")

    async def send_sms(self, sms: dict[str, Any]) -> None:
        say(f"Sending SMS to {sms['phone']}: {sms['message']}")
        await asyncio.sleep(0.1)
        say(f"SMS sent successfully to {sms['phone']}")

    async def send_push(self, push: dict[str, Any]) -> None:
        say(f"Sending push notification to user {push['user_id']}: {push['title']}")
        await asyncio.sleep(0.1)
        say(f"Push notification sent to user {push['user_id']}")


worker = Worker(patterns=PATTERNS)
worker.register("notify.%", NotificationExecutor(), never=(NotImplementedError, KeyError))

if __name__ == "__main__":
    say("Starting notification worker...")
    say(f"Watching for workflows: {PATTERNS}")
    say("Handles: email, SMS, and push notifications")
    worker.run()
