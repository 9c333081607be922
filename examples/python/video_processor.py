"""Long work in steps: it can be cancelled between them, and says that it is still alive.

    python examples/python/video_processor.py

or in two processes, of which you may kill one and see its run recovered by the other

    cd examples/python && wf worker video_processor:worker --processes 2
"""

import time
from functools import partial
from typing import Any

from simpleworkflow import RunCancelled, Worker, WorkflowExecutor, WorkflowRun

say = partial(print, flush=True)

MESSAGES = {
    "transcode": "Transcoding video {}...",
    "thumbnail": "Generating thumbnails for {}...",
    "upload": "Uploading video {} to CDN...",
}


class VideoProcessor(WorkflowExecutor):
    """Executes the operations of a video one after the other, each about ``seconds`` long."""

    def execute(self, run: WorkflowRun) -> dict[str, Any]:
        video_id, operations = run.payload["video_id"], run.payload["operations"]
        say(f"Starting video processing for {video_id}")
        say(f"Operations: {operations}")
        for number, operation in enumerate(operations, start=1):
            if run.is_cancelled():  # a memory read: ask as often as you like
                say(f"Video processing cancelled for {video_id}")
                raise RunCancelled
            say(f"Executing operation {number}/{len(operations)}: {operation}")
            say(MESSAGES[operation].format(video_id))
            time.sleep(run.payload.get("seconds", 1.0))  # the work
            if number < len(operations):
                say("Extending lease by 30 seconds...")
                run.heartbeat(30)
        say(f"Video processing completed for {video_id}")
        return {"video_id": video_id, "operations": len(operations)}


worker = Worker(concurrency=4)
# An operation that nobody knows will not be known on the next attempt either.
worker.register("media.%", VideoProcessor(), never=(KeyError,))


@worker.on_startup
def announce() -> None:
    say("Starting video processing worker...")


if __name__ == "__main__":
    worker.run()
