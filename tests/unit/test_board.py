"""The board of the workers of one supervisor: what is not surely an answer to one's own question is none."""

from __future__ import annotations

import subprocess
import sys

from simpleworkflow.maintenance import LEASES, RUNS, Board, Look

LOOK = Look(1000.25, 1002.5)

WRITER = """
import sys
from simpleworkflow.maintenance import RUNS, Board, Look
board, number = Board(int(sys.argv[1])), 0.0
while True:
    number += 1
    board.note(RUNS, b"a.b", Look(number, number + 0.5))
"""


def test_an_empty_board_tells_nothing() -> None:
    assert Board().read(RUNS, b"a.b") is None


def test_another_process_reads_what_was_written_for_the_same_question() -> None:
    board = Board.create()
    other = Board(board.fd)

    board.note(RUNS, b"a.b", LOOK)

    assert other.read(RUNS, b"a.b") == LOOK
    board.close()


def test_what_was_written_for_another_question_is_no_answer() -> None:
    board = Board()

    board.note(RUNS, b"a.b", LOOK)

    assert board.read(RUNS, b"a.c") is None
    assert board.read(LEASES, b"a.b") is None


def test_a_look_is_never_read_half_written() -> None:
    board = Board.create()
    command = [sys.executable, "-c", WRITER, str(board.fd)]
    writers = [subprocess.Popen(command, pass_fds=[board.fd]) for _ in range(2)]
    try:
        while board.read(RUNS, b"a.b") is None:
            assert [writer.poll() for writer in writers] == [None, None]

        found = [board.read(RUNS, b"a.b") for _ in range(50_000)]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)

    looks = [look for look in found if look]
    assert looks
    assert [look for look in looks if look.next_at != look.looked_at + 0.5] == []
    board.close()
