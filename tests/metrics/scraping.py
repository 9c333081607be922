"""What a Prometheus would read."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from worker.stage import Program, eventually


class Scrape:
    """One answer of ``/metrics``."""

    def __init__(self, url: str) -> None:
        with urlopen(url, timeout=10) as answer:
            self.text: str = answer.read().decode()
        self.families = {one.name: one for one in text_string_to_metric_families(self.text)}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for one in self.families.values()
            for sample in one.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return one value; 0 where there is none yet."""
        return self.samples.get((f"simpleworkflow_{name}", frozenset(labels.items())), 0.0)


def url_of(program: Program) -> str:
    """Return where a program serves its metrics, once it says so."""
    found = eventually(lambda: re.search(r"http://\S+/metrics", program.log), seconds=20, what=program.log)
    return str(found[0])


def a_free_port() -> int:
    """Return a port that nobody listens on now."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return int(listening.getsockname()[1])
