"""A PostgreSQL server for one project folder, shared by its processes, gone when the last has left."""

from __future__ import annotations

from simpleworkflow.embedded.binaries import find_binaries
from simpleworkflow.embedded.home import default_folder
from simpleworkflow.embedded.server import EmbeddedPostgres, start

__all__ = ["EmbeddedPostgres", "default_folder", "find_binaries", "start"]
