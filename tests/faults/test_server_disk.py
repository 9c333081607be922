"""A disk that is full, and freed again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders import connect
from faults.load import Producers, agree, drained, working
from faults.servers import OwnServer, own_server, small_disk
from simpleworkflow import DatabaseUnavailable
from worker.stage import eventually

LEFT_BYTES = 300_000


class Disk:
    """A small disk that can be filled to the brim."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, left: int) -> None:
        """Leave so many bytes."""
        room = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - left)

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    with small_disk() as folder:
        yield Disk(folder)


@pytest.fixture
def server(request: pytest.FixtureRequest, disk: Disk) -> Iterator[OwnServer]:
    """A server whose data is on the small disk; its write-ahead log too, or, for ``data``, elsewhere."""
    settings = {"max_wal_size": "8MB", "min_wal_size": "2MB", "autovacuum": "off"}
    data, log_apart = disk.folder / "data", request.param == "data"
    with own_server(data=data, log_apart=log_apart, settings=settings) as server:
        yield server


@pytest.mark.parametrize("server", ["data"], indirect=True)
@pytest.mark.fault("Database and network", "the disk of the data is full, then freed", "P1, P2")
def test_producers_are_told_of_a_full_disk_and_all_resumes(
    server: OwnServer, disk: Disk, database_url: str
) -> None:
    with working(database_url) as executions, Producers(database_url, payload="x" * 4000) as producers:
        producers.progress()
        disk.fill(left=LEFT_BYTES)
        eventually(lambda: len(producers.refused) >= 3, seconds=10, what="errors")
        disk.free()
        producers.progress()
        producers.stop()
        with connect(database_url) as db:
            drained(db)
            agree(db, producers, executions)

    assert {type(error) for error in producers.refused} == {DatabaseUnavailable}
    assert all("is out of resources" in str(error) for error in producers.refused), producers.refused
    assert producers.unknown == 0


@pytest.mark.parametrize("server", ["wal"], indirect=True)
@pytest.mark.fault(
    "Database and network",
    "the disk of the write-ahead log is full, a crash; then freed",
    "P1, P2",
)
def test_nothing_acknowledged_is_lost_when_the_log_finds_no_room(
    server: OwnServer, disk: Disk, database_url: str
) -> None:
    with working(database_url) as executions, Producers(database_url, payload="x" * 4000) as producers:
        producers.progress()
        disk.fill(left=LEFT_BYTES)
        eventually(lambda: producers.refused or producers.unknown, seconds=20, what="errors")
        disk.free()
        if not server.is_running_after(seconds=2):
            server.start()
        producers.progress()
        producers.stop()
        with connect(database_url) as db:
            drained(db)
            agree(db, producers, executions)
