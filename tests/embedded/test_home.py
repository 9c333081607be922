"""Which folder is the server's."""

from __future__ import annotations

from pathlib import Path

import pytest

from simpleworkflow.embedded import default_folder


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_project_has_its_own_server_also_from_a_folder_below(home):
    project = home / "shop"
    (project / "app" / "views").mkdir(parents=True)
    (project / "pyproject.toml").touch()

    folder = default_folder(project / "app" / "views")

    assert folder == project / ".simpleworkflow" / "postgres"
    assert default_folder(project) == folder
    assert not folder.parent.exists()


def test_outside_a_project_the_user_has_one(home):
    (home / "downloads").mkdir()
    (home / ".git").mkdir()  # some keep their settings so: that makes no project of everything

    folder = default_folder(home / "downloads")

    assert folder == home / ".local" / "share" / "simpleworkflow" / "postgres"


def test_a_marker_in_a_folder_that_everybody_writes_is_not_believed(home):
    shared = home / "shared"
    (shared / "scratch").mkdir(parents=True)
    shared.chmod(0o1777)
    (shared / ".simpleworkflow").mkdir()

    folder = default_folder(shared / "scratch")

    assert folder == Path.home() / ".local" / "share" / "simpleworkflow" / "postgres"
