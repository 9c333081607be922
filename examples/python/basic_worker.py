"""The smallest worker: one function that handles one type of run.

    python examples/python/basic_worker.py

and in another terminal

    wf submit content.thumbnail.v1 '{"content_id": "img123", "width": 300, "height": 200}'
"""

import time
from dataclasses import dataclass
from functools import partial

from simpleworkflow import Worker, WorkflowRun

say = partial(print, flush=True)  # at once, also when the output goes into a file or a pipe

worker = Worker()


@dataclass
class Thumbnail:
    """What the payload has to look like; one that does not fails with the name of the field."""

    content_id: str
    width: int
    height: int


@worker.handler("content.thumbnail.v1", timeout_seconds=60)
def make_thumbnail(run: WorkflowRun, thumbnail: Thumbnail) -> dict[str, str]:
    say(f"Generating thumbnail for content {thumbnail.content_id} ({thumbnail.width}x{thumbnail.height})")
    time.sleep(0.2)  # the work
    say(f"Thumbnail completed for content {thumbnail.content_id}")
    return {"file": f"thumbnails/{run.id}.png"}


if __name__ == "__main__":
    say("Starting thumbnail worker...")
    worker.run()
