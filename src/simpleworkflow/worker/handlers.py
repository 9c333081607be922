"""Which handler executes which type, and how it wants to be called."""

from __future__ import annotations

import inspect
import os
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from simpleworkflow.model import matches
from simpleworkflow.payloads import payload_reader
from simpleworkflow.worker.options import HandlerOptions, WorkerOptions

__all__ = ["Handler", "Handlers", "WorkflowExecutor"]

_PATTERN = re.compile(r"^(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|[A-Za-z0-9_.-]*%)$")

Kind = Literal["async", "thread", "cpu"]


class WorkflowExecutor(ABC):
    """Executes runs: a handler as an object, with its own state and settings.

    ``execute`` may be ``async def``; a sync one runs in a thread, several at once, so what it shares
    with others it must protect.
    """

    @abstractmethod
    def execute(self, run: Any) -> Any:
        """Do the work of one run; what it returns (JSON) is the result, what it raises fails the attempt."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function ready to be called with a run: how, and with what made of the payload."""

    pattern: str
    function: Callable[..., Any]
    kind: Kind
    takes_payload: bool
    read_payload: Callable[[Any], Any]
    options: HandlerOptions


class Handlers:
    """All handlers of a worker: an exact type wins over a prefix, a longer prefix over a shorter one."""

    def __init__(self) -> None:
        self._exact: dict[str, Handler] = {}
        self._prefixes: list[Handler] = []
        self._found: dict[str, Handler | None] = {}

    @property
    def patterns(self) -> list[str]:
        """The patterns that have a handler."""
        return [*self._exact, *(handler.pattern for handler in self._prefixes)]

    def add(self, pattern: str, executes: object, options: HandlerOptions) -> None:
        """Let ``executes``, a function or an executor, handle the types that ``pattern`` covers.

        Raises:
            ValueError: the pattern is none, or has a handler already.
            TypeError: ``executes`` cannot be called with a run.
        """
        if not _PATTERN.match(pattern) or len(pattern) > 200:
            raise ValueError(
                f"expected a type such as 'billing.invoice.v1' or a prefix 'billing.%', got {pattern!r}"
            )
        if pattern in self.patterns:
            raise ValueError(f"{pattern!r} has a handler already")
        handler = _make_handler(pattern, executes, options)
        if pattern.endswith("%"):
            self._prefixes.append(handler)
            self._prefixes.sort(key=lambda one: -len(one.pattern))
        else:
            self._exact[pattern] = handler
        self._found.clear()

    def fitting(self, options: WorkerOptions, threads: int | None, concurrency: int | None) -> WorkerOptions:
        """Return ``options`` for these handlers: no more runs are claimed than can execute.

        ``threads`` and ``concurrency`` are what the user asked for, None where nothing was said.
        """
        threads = threads if threads is not None else concurrency or options.threads
        concurrency = concurrency or options.concurrency
        handlers = [*self._exact.values(), *self._prefixes]
        kinds = {handler.kind for handler in handlers}
        if "async" not in kinds:
            # Beside a handler of one run, batches are as small as there are threads.
            batch_max = min(
                (one.options.batch_max or 1 for one in handlers if one.kind == "thread"), default=1
            )
            places = threads * batch_max if "thread" in kinds else 0
            places += (options.cpu_processes or os.cpu_count() or 1) if "cpu" in kinds else 0
            concurrency = min(concurrency, places)
        return replace(options, concurrency=concurrency, threads=threads)

    def find(self, type_: str) -> Handler | None:
        """Return the handler for a type."""
        if type_ not in self._found:
            if len(self._found) > 10_000:
                self._found.clear()
            self._found[type_] = self._exact.get(type_) or next(
                (handler for handler in self._prefixes if matches(handler.pattern, type_)), None
            )
        return self._found[type_]


def _make_handler(pattern: str, executes: object, options: HandlerOptions) -> Handler:
    function = executes.execute if isinstance(executes, WorkflowExecutor) else executes
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"expected a function or a WorkflowExecutor object for {pattern!r}, got {executes!r}")
    parameters = _positional_parameters(pattern, function)
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__ is a handler too
    )
    if is_async and options.cpu:
        raise TypeError(
            f"{pattern!r}: cpu=True runs the handler in a process of its own, which needs a plain function"
        )
    if options.cpu and options.batch_max:
        raise TypeError(f"{pattern!r}: cpu=True executes one run in a process, got batch_max as well")
    return Handler(
        pattern=pattern,
        function=function,
        kind="cpu" if options.cpu else "async" if is_async else "thread",
        takes_payload=len(parameters) == 2,
        read_payload=payload_reader(
            _payload_type(pattern, function, parameters[1], options) if len(parameters) == 2 else Any
        ),
        options=options,
    )


def _positional_parameters(pattern: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    signature = inspect.signature(function)
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    others = [
        one
        for one in signature.parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    if len(positional) not in (1, 2) or others:
        raise TypeError(f"{pattern!r}: expected a handler(run) or handler(run, payload), got {signature}")
    return positional


def _payload_type(
    pattern: str, function: Callable[..., Any], parameter: inspect.Parameter, options: HandlerOptions
) -> Any:
    annotation = _annotation(function, parameter)
    if not options.batch_max or annotation is Any or annotation is list:
        return Any if options.batch_max else annotation
    if typing.get_origin(annotation) is not list:
        raise TypeError(f"{pattern!r}: expected a list of payloads for a batch, got {annotation!r}")
    return typing.get_args(annotation)[0]


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    target = getattr(function, "__func__", function)
    return typing.get_type_hints(target, include_extras=True).get(parameter.name, Any)
