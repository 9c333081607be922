"""How an attempt ends, whatever its handler does: nothing that is raised gets further than this."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from simpleworkflow.codec import decode, describe_error
from simpleworkflow.errors import LeaseLost, RunCancelled
from simpleworkflow.outcome import (
    Cancelled,
    Failed,
    Lost,
    Outcome,
    Released,
    Retried,
    Succeeded,
    decide_failure,
    decide_result,
)
from simpleworkflow.worker.calling import Callers
from simpleworkflow.worker.execution import Execution
from simpleworkflow.worker.slots import Verdict

__all__ = ["attempt", "attempt_all"]

logger = logging.getLogger("simpleworkflow.worker")


async def attempt(callers: Callers, execution: Execution) -> Outcome:
    """Return how the attempt of one run ended."""
    try:
        payload, arguments = _read(execution)
        return decide_result(await callers.call(execution, payload, arguments))
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises, the worker lives
        return _judge(execution, error)


async def attempt_all(callers: Callers, executions: Sequence[Execution]) -> list[Outcome]:
    """Return how the attempts of what one call executes ended, inside of what surrounds attempts."""
    claimed = [one.claimed for one in executions]
    stack = ExitStack()
    try:
        told = [stack.enter_context(around(claimed)) for around in callers.around]
    except BaseException as error:  # noqa: BLE001 - user code, like a handler, which is not called then
        told, outcomes = [], [_judge(one, error) for one in executions]
    else:
        if len(executions) == 1 and not executions[0].handler.options.batch_max:
            outcomes = [await attempt(callers, executions[0])]
        else:
            outcomes = await attempt_batch(callers, executions)
    ends: list[Callable[[], object]] = [partial(tell, outcomes) for tell in told if tell is not None]
    for end in [*ends, stack.close]:
        try:
            end()
        except BaseException as error:  # noqa: BLE001 - how the attempts ended, they have ended
            logger.error("what surrounds attempts has failed: %s", type(error).__name__)
    return outcomes


async def attempt_batch(callers: Callers, executions: Sequence[Execution]) -> list[Outcome]:
    """Return how the attempts of runs ended that one call of their handler executes; in their order.

    A run whose payload cannot be read fails alone.  What the handler raises is every run's error; where it returns a
    list, each run has its own result, or its own error.
    """
    outcomes: dict[int, Outcome] = {}
    called: list[Execution] = []
    payloads: list[Any] = []
    arguments: list[Any] = []
    for execution in executions:
        try:
            payload, argument = _read(execution)
        except BaseException as error:  # noqa: BLE001 - readers of payloads are user code too
            outcomes[execution.sequence] = _judge(execution, error)
        else:
            called.append(execution)
            payloads.append(payload)
            arguments.extend(argument)
    if called:
        ends = await _call(callers, called, payloads, arguments)
        outcomes |= {execution.sequence: end for execution, end in zip(called, ends, strict=True)}
    return [outcomes[execution.sequence] for execution in executions]


async def _call(
    callers: Callers, called: list[Execution], payloads: list[Any], arguments: list[Any]
) -> list[Outcome]:
    try:
        value = await callers.call_batch(called, payloads, arguments)
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises, the worker lives
        return _judge_batch(called, error)
    if value is None:
        return [Succeeded()] * len(called)
    if not isinstance(value, list | tuple) or len(value) != len(called):
        got = f"{len(value)}" if isinstance(value, list | tuple) else type(value).__name__[:100]
        return [Failed(f"expected None or a list of {len(called)} results from the batch, got {got}")] * len(
            called
        )
    return [
        _judge_one_of_batch(execution, one, is_any_unwanted=False)
        if isinstance(one, BaseException)
        else decide_result(one)
        for execution, one in zip(called, value, strict=True)
    ]


def _judge_batch(called: Sequence[Execution], error: BaseException) -> list[Outcome]:
    """Return what an error means for each: one that stopped because of others is given back, or tried again."""
    is_any_unwanted = any(execution.verdict() is not None for execution in called)
    return [_judge_one_of_batch(execution, error, is_any_unwanted=is_any_unwanted) for execution in called]


def _judge_one_of_batch(execution: Execution, error: BaseException, *, is_any_unwanted: bool) -> Outcome:
    outcome = _judge(execution, error)
    if execution.verdict() is None and isinstance(outcome, Cancelled | Lost):
        return Released() if is_any_unwanted else Retried(describe_error(error))
    return outcome


def _read(execution: Execution) -> tuple[Any, tuple[Any, ...]]:
    """Return the payload, and what the handler is given of it beside its run."""
    claimed, handler = execution.claimed, execution.handler
    if execution.verdict() is not None:
        raise RunCancelled(claimed.id) if execution.found is Verdict.CANCELLED else LeaseLost(claimed.id)
    payload = decode(claimed.payload)
    return payload, (handler.read_payload(payload),) if handler.takes_payload else ()


def _judge(execution: Execution, error: BaseException) -> Outcome:
    verdict = execution.verdict()
    if verdict is Verdict.CANCELLED:
        return Cancelled()
    if verdict is Verdict.LOST:
        return Lost()
    options = execution.handler.options
    number = execution.claimed.attempt
    outcome = decide_failure(error, attempt=number, retry=options.retry)
    if isinstance(outcome, Retried) and options.max_attempts and number >= options.max_attempts:
        return Failed(outcome.error)
    return outcome
