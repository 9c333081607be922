"""How an attempt may end: a closed set of frozen values, and the pure decisions between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from simpleworkflow.codec import bound_text, describe_error, encode_result
from simpleworkflow.errors import InvalidInput, LeaseLost, PayloadMismatch, RetryAfter, RunCancelled
from simpleworkflow.retry import RetryPolicy, clamp_delay

__all__ = [
    "Cancelled",
    "Failed",
    "Lost",
    "Outcome",
    "Released",
    "Retried",
    "Succeeded",
    "Suspended",
    "decide_failure",
    "decide_result",
]

# A group of more errors than this is judged by its first ones; it is about to be retried anyway.
_LEAVES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; ``result_json`` is JSON text, or None for no result."""

    result_json: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Retried:
    """The attempt failed; try again after ``delay_seconds``, or by the database's default rule if None.

    Without attempts left the database makes it ``failed``.
    """

    error: str
    delay_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The run failed and another attempt would not help."""

    error: str


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt was given back untouched, for any worker to claim."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The run sleeps for ``delay_seconds``, or waits to be woken if None; the attempt is given back."""

    delay_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run was cancelled and the handler stopped; there is nothing to write."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Another worker holds the run; nothing may be written."""


_SUCCEEDED = Succeeded()  # immutable, and how most attempts end

Outcome = Succeeded | Retried | Failed | Released | Suspended | Cancelled | Lost


def decide_result(value: object) -> Outcome:
    """Return ``Succeeded`` with ``value`` as JSON, or ``Failed`` if it cannot be stored.

    A result that cannot be stored fails without retry: the handler would do its work again and return
    the same.  Never raises.
    """
    if value is None:
        return _SUCCEEDED
    try:
        return Succeeded(encode_result(value))
    except InvalidInput as error:
        return Failed(bound_text(f"the result cannot be stored: {error}"))
    except BaseException as error:  # noqa: BLE001 - properties of a result are user code; the worker must live
        return Failed(f"the result cannot be stored: reading it raised {type(error).__name__[:100]}")


def decide_failure(error: BaseException, *, attempt: int, retry: RetryPolicy) -> Outcome:
    """Return what ``error``, raised by a handler in ``attempt`` (1, 2, …), means for its run.

    ``RunCancelled`` is Cancelled, ``LeaseLost`` Lost, ``PayloadMismatch`` and what ``retry.never`` names
    Failed, ``RetryAfter`` Retried after its seconds.  Everything else is Retried by the policy, also
    SystemExit, KeyboardInterrupt and CancelledError.  A group of errors counts as one of these if all
    its errors do.  Whether attempts are left is decided by the database.  Never raises.
    """
    try:
        return _decided(error, attempt, retry)
    except BaseException:  # noqa: BLE001 - its class may be user code too; the worker must live
        return Retried(describe_error(error))


def _decided(error: BaseException, attempt: int, retry: RetryPolicy) -> Outcome:
    leaves = _leaves(error)
    if _all_are(leaves, LeaseLost):
        return Lost()
    if _all_are(leaves, RunCancelled):
        return Cancelled()
    if _all_are(leaves, (PayloadMismatch, *retry.never)):
        return Failed(describe_error(error))
    if _all_are(leaves, RetryAfter):
        return Retried(describe_error(error), clamp_delay(getattr(leaves[0], "seconds", None)))
    return _retry_by_policy(error, attempt, retry)


def _retry_by_policy(error: BaseException, attempt: int, retry: RetryPolicy) -> Retried:
    seconds, fault = retry.planned_delay(attempt)
    text = describe_error(error)
    # A broken back-off function is said where a person looks first: beside the error itself.
    return Retried(bound_text(f"{text}\n({fault}; the default rule applies)") if fault else text, seconds)


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the errors inside nested groups, without recursion; an error of its own is its only leaf."""
    leaves: list[BaseException] = []
    unseen = [error]
    while unseen and len(leaves) < _LEAVES_MAX:
        current = unseen.pop()
        if isinstance(current, BaseExceptionGroup):
            unseen.extend(reversed(current.exceptions))
        else:
            leaves.append(current)
    return leaves


def _all_are(
    leaves: list[BaseException], kinds: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
    return all(isinstance(leaf, kinds) for leaf in leaves)
