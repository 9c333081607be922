"""What happens in the demo, scene by scene."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from simpleworkflow.cli.demo_stage import Stage
from simpleworkflow.cli.session import shown_path
from simpleworkflow.cli.timeline import print_events

THUMBNAIL = {"content_id": "img123", "width": 300, "height": 200}
INVOICE = '{"invoice_id": "INV-001", "amount": 150.00, "customer_id": "CUST-123"}'
PAYMENT = '{"payment_id": "PAY-001", "amount": 15000.00, "method": "credit_card"}'
EMAIL = {"to": "user@example.com", "subject": "Welcome!", "body": "Hello!"}
SMS = {"phone": "+15550100", "message": "Your code is 4711"}
PUSH = {"user_id": "user123", "title": "New Message", "body": "Hello!"}


def tell(stage: Stage) -> None:
    """Tell the whole story.

    Raises:
        ClickException: something that it promises did not happen.
    """
    started_at = time.monotonic()
    where = "the embedded one" if stage.database.is_embedded else stage.database.shown
    stage.screen.say(f"simple-workflow: durable workflows on PostgreSQL, here {where}")
    workers_start(stage)
    runs_are_submitted(stage)
    a_payment_is_retried(stage)
    a_video_is_processed(stage)
    a_video_is_cancelled(stage)
    recovered = a_worker_is_killed(stage)
    show_the_audit_trail(stage, recovered)
    tell_what_next(stage, recovered, time.monotonic() - started_at)


def workers_start(stage: Stage) -> None:
    stage.screen.scene("Four workers start; each claims the types that it handles")
    stage.workers.start()


def runs_are_submitted(stage: Stage) -> None:
    stage.screen.scene("Runs are recorded: by the Python client, and by plain SQL from anywhere")
    run_ids = [
        stage.submit("content.thumbnail.v1", THUMBNAIL),
        stage.insert("billing.invoice.v1", INVOICE),
        stage.submit("notify.email.v1", EMAIL),
        stage.submit("notify.sms.v1", SMS),
        stage.submit("notify.push.v1", PUSH),
    ]
    for run_id in run_ids:
        stage.expect_end(run_id, "succeeded", attempt=1)


def a_payment_is_retried(stage: Stage) -> None:
    stage.screen.scene("A payment fails and is tried again, here after 3 seconds")
    stage.expect_end(stage.insert("billing.payment.v1", PAYMENT), "succeeded", attempt=2)


def a_video_is_processed(stage: Stage) -> None:
    stage.screen.scene("A video takes longer; its handler extends the lease in between")
    stage.expect_end(stage.submit("media.video.v1", _video("vid123")), "succeeded", attempt=1)


def a_video_is_cancelled(stage: Stage) -> None:
    stage.screen.scene("A second video is cancelled in the middle, by a plain UPDATE")
    run_id = stage.submit("media.video.v1", _video("vid456"))
    stage.expect_second_operation(run_id)
    stage.cancel(run_id)
    stage.expect_line("video", "Video processing cancelled for vid456")
    stage.expect_end(run_id, "cancelled", attempt=1)


def a_worker_is_killed(stage: Stage) -> UUID:
    stage.screen.scene("A worker process is killed in the middle of a third video")
    run_id = stage.submit("media.video.v1", _video("vid789"))
    pid = stage.expect_second_operation(run_id)
    stage.screen.show(f"kill -9 {pid}")
    os.kill(pid, signal.SIGKILL)
    stage.screen.say("   Its supervisor gives the run to another process, and replaces the dead one:")
    stage.expect_end(run_id, "succeeded", attempt=2)
    return run_id


def show_the_audit_trail(stage: Stage, run_id: UUID) -> None:
    stage.screen.scene("The audit trail of that run; each event was written with its change")
    stage.screen.show(f"{_program('wf')} run show {run_id}")
    print_events(stage.client.events(run_id))


def tell_what_next(stage: Stage, run_id: UUID, seconds: float) -> None:
    wf, python = _program("wf"), _program("python")
    basic_worker = stage.workers.examples / "basic_worker.py"
    stage.screen.say(f"\nAll of it happened as it should, in {seconds:.0f} s.  The runs are still there; try")
    stage.screen.show(
        f"{wf} run list\n"
        f"{wf} run show {run_id}\n"
        f'{wf} psql -c "SELECT type, status, attempt FROM workflow_run"\n'
        f"{wf} verify"
    )
    stage.screen.say("or a worker in one terminal, and a run for it in another:")
    stage.screen.show(
        f"{python} {shown_path(basic_worker)}\n"
        f"{wf} submit content.thumbnail.v1 --wait \\\n"
        f"  '{json.dumps(THUMBNAIL)}'"
    )
    readme = stage.workers.examples.parent / "README.md"
    if readme.is_file():
        stage.screen.say(f"{shown_path(readme)} has more of them.")


def _video(video_id: str) -> dict[str, Any]:
    return {"video_id": video_id, "operations": ["transcode", "thumbnail", "upload"]}


def _program(name: str) -> str:
    """Return how to call a program of this environment: by its name, or by its path from here."""
    beside_python = Path(sys.executable).parent / name
    if not beside_python.exists() or shutil.which(name) == str(beside_python):
        return name
    return shown_path(beside_python)
