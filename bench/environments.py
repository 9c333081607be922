"""An environment for each system, made on demand in .bench: a venv, an npm folder or a Go module."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from systems import PEERS, NotMeasuredError, System

HOME = Path(__file__).resolve().parents[1] / ".bench"
INSTALL_SECONDS_MAX = 600


def command(system: System) -> list[str]:
    """Return how the system's program is started, after its packages have been installed.

    Raises:
        NotMeasuredError: what it needs cannot be had here.
    """
    return [*_MAKERS[system.environment](system), *system.arguments]


def _own(system: System) -> list[str]:
    return [sys.executable, str(PEERS / system.program)]


def _python(system: System) -> list[str]:
    python = HOME / system.name / "bin" / "python"

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], folder.parent)
        _run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *system.packages],
            folder,
        )

    _once(system, install)
    return [str(python), str(PEERS / system.program)]


def _node(system: System) -> list[str]:
    npm, node = _tool("npm"), _tool("node")

    def install(folder: Path) -> None:
        (folder / "package.json").write_text('{"private": true}\n')
        _run([npm, "install", "--no-audit", "--no-fund", "--save-exact", *system.packages], folder)

    folder = _once(system, install)
    shutil.copy(PEERS / system.program, folder)  # a module's imports are looked up from where it lies
    own = folder / "node_modules" / ".bin" / "node"
    return [str(own) if own.exists() else node, str(folder / system.program)]


def _go(system: System) -> list[str]:
    go = _tool("go")

    def install(folder: Path) -> None:
        for made in ("go.mod", "program"):
            (folder / made).unlink(missing_ok=True)
        shutil.copy(PEERS / system.program, folder / "main.go")
        _run([go, "mod", "init", f"bench/{system.name}"], folder)
        _run([go, "get", *system.packages], folder)
        _run([go, "mod", "tidy"], folder)

    folder = _once(system, install)
    source, main = PEERS / system.program, folder / "main.go"
    if not (folder / "program").exists() or main.read_bytes() != source.read_bytes():
        shutil.copy(source, main)
        _run([go, "build", "-o", "program", "."], folder)
    return [str(folder / "program")]


_MAKERS = {"own": _own, "python": _python, "node": _node, "go": _go}


def _once(system: System, install: object) -> Path:
    folder = HOME / system.name
    stamp = folder / ".installed"
    packages = "\n".join(system.packages)
    if not stamp.exists() or stamp.read_text() != packages:
        print(f"installing {system.title} ...", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        assert callable(install)
        install(folder)
        stamp.write_text(packages)
    return folder


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotMeasuredError(f"{name} is not installed")
    return found


def _run(arguments: Sequence[str], folder: Path) -> None:
    try:
        subprocess.run(
            arguments, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX
        )
    except subprocess.TimeoutExpired:
        raise NotMeasuredError(f"not installed within {INSTALL_SECONDS_MAX} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        raise NotMeasuredError(f"not installed: {lines[-1].strip() if lines else error}") from None
