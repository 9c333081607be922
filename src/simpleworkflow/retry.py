"""When a failed attempt is tried again: the retry policy of a handler, as a pure value."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from simpleworkflow.model import RETRY_DELAY_SECONDS_MAX

__all__ = ["Backoff", "PlannedDelay", "RetryPolicy", "clamp_delay", "exponential"]


Backoff = float | Sequence[float] | Callable[[int], float] | None


class PlannedDelay(NamedTuple):
    """What a policy says about one attempt: the delay, and why its own back-off was not used."""

    seconds: float | None
    fault: str | None = None


def clamp_delay(value: object) -> float | None:
    """Return ``value`` as seconds between 0 and 365 days, or None if it is no number at all.

    Infinity and integers beyond any float become 365 days; NaN, booleans and everything that is not a
    real number are None, which means the database's default rule.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(_comparable(value)):
        return None
    return float(min(max(_comparable(value), 0.0), RETRY_DELAY_SECONDS_MAX))


def _comparable(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond any float, such as 2**5000
        return math.inf if value > 0 else -math.inf


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Say how long to wait after a failed attempt, and which errors are not worth another one.

    ``backoff`` is seconds for every attempt; or one number of seconds per attempt, the last of which
    repeats; or a function from the attempt (1, 2, …) to seconds; or None for the database's default
    rule: attempt² minutes ± 10 %, at most 6 hours.  A delay below 0 counts as 0, one above 365 days as
    365 days.  An error that is an instance of ``never`` fails the run at once.

    Raises:
        TypeError: ``backoff`` or ``never`` is of another type.
        ValueError: a number of seconds is negative or not finite, or the sequence is empty.
    """

    backoff: Backoff = None
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "backoff", _checked_backoff(self.backoff))
        _check_never(self.never)

    def delay_for(self, attempt: int) -> float | None:
        """Return the seconds to wait after ``attempt`` (1, 2, …); None means the database's default rule.

        Never raises: a ``backoff`` function that raises or returns no number counts as None here, and
        ``planned_delay`` says so.
        """
        return self.planned_delay(attempt).seconds

    def planned_delay(self, attempt: int) -> PlannedDelay:
        """Return the delay after ``attempt`` and, if the ``backoff`` function is broken, what it did.

        Never raises.  ``fault`` is one line for the run's ``last_error``, or None.
        """
        if callable(self.backoff):
            return _call_backoff(self.backoff, attempt)
        if isinstance(self.backoff, tuple):
            return PlannedDelay(clamp_delay(self.backoff[min(max(attempt, 1), len(self.backoff)) - 1]))
        return PlannedDelay(clamp_delay(self.backoff))


def _call_backoff(backoff: Callable[[int], float], attempt: int) -> PlannedDelay:
    try:
        answer: object = backoff(attempt)
        seconds = clamp_delay(answer)
    except OverflowError:
        # Back-offs such as 2.0 ** attempt grow past any float; what was meant is "very long".
        return PlannedDelay(float(RETRY_DELAY_SECONDS_MAX))
    except BaseException as error:  # noqa: BLE001 - user code; not even SystemExit may end the worker
        return PlannedDelay(None, f"the back-off function raised {type(error).__name__}")
    if seconds is None:
        return PlannedDelay(None, f"the back-off function returned {type(answer).__name__}, not seconds")
    return PlannedDelay(seconds)


def exponential(
    base_seconds: float,
    *,
    factor: float = 2.0,
    max_seconds: float = 6 * 3600.0,
    jitter: float = 0.1,
) -> Callable[[int], float]:
    """Return a back-off of ``base_seconds``, then ``factor`` times longer after each attempt.

    It never exceeds ``max_seconds``.  Up to ``jitter`` of each delay, 10 % by default, is taken off at
    random, so that runs that failed together do not come back together.  The value can be pickled.

    Raises:
        ValueError: a number is negative or not finite, ``factor`` is below 1, or ``jitter`` above 1.
    """
    return _Exponential(base_seconds, factor, max_seconds, jitter)


@dataclass(frozen=True)
class _Exponential:
    base_seconds: float
    factor: float
    max_seconds: float
    jitter: float

    def __post_init__(self) -> None:
        for name in ("base_seconds", "factor", "max_seconds", "jitter"):
            _check_seconds(getattr(self, name), name)
        if self.factor < 1:
            raise ValueError(f"expected factor >= 1, got {self.factor!r}")
        if self.jitter > 1:
            raise ValueError(f"expected jitter between 0 and 1, got {self.jitter!r}")

    def __call__(self, attempt: int) -> float:
        try:
            seconds = min(self.base_seconds * self.factor ** (attempt - 1), self.max_seconds)
        except OverflowError:
            seconds = self.max_seconds if self.base_seconds else 0.0
        return seconds * (1 - self.jitter * random.random())  # noqa: S311 - spreads load, guards no secret


def _checked_backoff(backoff: object) -> object:
    """Return ``backoff`` with a sequence turned into a tuple, so that nobody changes it later."""
    if backoff is None or callable(backoff):
        return backoff
    if isinstance(backoff, Sequence) and not isinstance(backoff, str | bytes):
        if not backoff:
            raise ValueError("expected backoff to hold at least one number of seconds, got an empty sequence")
        for seconds in backoff:
            _check_seconds(seconds, "backoff")
        return tuple(backoff)
    _check_seconds(backoff, "backoff")
    return backoff


def _check_seconds(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected {name} to be a number, got {type(value).__name__}")
    number = _comparable(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"expected {name} to be finite and >= 0, got {number!r}")


def _check_never(never: object) -> None:
    if not isinstance(never, tuple):
        raise TypeError(f"expected never to be a tuple of exception classes, got {type(never).__name__}")
    for kind in never:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"expected never to hold exception classes, got {str(kind)[:100]}")
