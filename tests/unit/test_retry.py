"""The retry policy: how long to wait after a failed attempt."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpleworkflow.model import RETRY_DELAY_SECONDS_MAX
from simpleworkflow.retry import RetryPolicy, clamp_delay, exponential


def raises(error: BaseException):
    def backoff(attempt: int) -> float:
        raise error

    return backoff


def test_without_a_back_off_the_database_decides():
    policy = RetryPolicy()

    assert policy.delay_for(1) is None
    assert policy.planned_delay(1).fault is None


def test_one_number_is_the_delay_after_every_attempt():
    policy = RetryPolicy(backoff=30)

    assert [policy.delay_for(attempt) for attempt in (1, 2, 1000)] == [30, 30, 30]


def test_a_sequence_gives_one_delay_per_attempt_and_its_last_one_repeats():
    policy = RetryPolicy(backoff=[1, 5, 60])

    assert [policy.delay_for(attempt) for attempt in (1, 2, 3, 4, 1000)] == [1, 5, 60, 60, 60]


def test_a_sequence_changed_later_does_not_change_the_policy():
    delays = [1.0, 2.0]
    policy = RetryPolicy(backoff=delays)

    delays.clear()

    assert policy.delay_for(2) == 2.0


def test_a_function_is_asked_with_the_attempt():
    policy = RetryPolicy(backoff=lambda attempt: attempt * 10)

    assert [policy.delay_for(attempt) for attempt in (1, 2, 3)] == [10, 20, 30]


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (lambda _: 2**5000, RETRY_DELAY_SECONDS_MAX),
        (lambda _: 2.0**5000, RETRY_DELAY_SECONDS_MAX),
        (lambda _: math.inf, RETRY_DELAY_SECONDS_MAX),
        (lambda _: -(2**5000), 0.0),
        (lambda _: -1, 0.0),
        (lambda _: -math.inf, 0.0),
    ],
)
def test_a_delay_that_overflows_is_clamped_to_between_zero_and_a_year(backoff, expected):
    policy = RetryPolicy(backoff=backoff)

    assert policy.delay_for(5000) == expected


@pytest.mark.parametrize(
    "backoff",
    [
        raises(ZeroDivisionError()),
        raises(SystemExit(1)),
        raises(KeyboardInterrupt()),
        lambda _: math.nan,
        lambda _: "soon",
        lambda _: None,
        lambda _: True,
        lambda _: 1j,
    ],
)
def test_a_broken_function_falls_back_to_the_database_s_rule_and_says_so(backoff):
    policy = RetryPolicy(backoff=backoff)

    planned = policy.planned_delay(1)

    assert planned.seconds is None
    assert planned.fault is not None
    assert planned.fault.startswith("the back-off function r")


@pytest.mark.parametrize("backoff", ["60", b"60", True, [True], ["1"], {1: 2}, 1j])
def test_a_back_off_of_another_type_is_refused_at_once(backoff):
    with pytest.raises(TypeError, match="expected backoff to be a number, got"):
        RetryPolicy(backoff=backoff)


@pytest.mark.parametrize("backoff", [-1, math.nan, math.inf, 2**5000, [], [1, -1]])
def test_a_back_off_of_impossible_seconds_is_refused_at_once(backoff):
    with pytest.raises(ValueError, match="expected backoff to"):
        RetryPolicy(backoff=backoff)


@pytest.mark.parametrize("never", [ValueError, [ValueError], (ValueError(),), ("ValueError",), (int,)])
def test_never_takes_exception_classes_only(never):
    with pytest.raises(TypeError, match="expected never to"):
        RetryPolicy(never=never)


def test_exponential_grows_by_its_factor_up_to_its_maximum():
    policy = RetryPolicy(backoff=exponential(10, factor=3, max_seconds=100, jitter=0))

    assert [policy.delay_for(attempt) for attempt in (1, 2, 3, 4, 10_000)] == [10, 30, 90, 100, 100]


@given(
    attempt=st.integers(1, 10**6),
    base=st.floats(0, 1e6),
    factor=st.floats(1, 100),
    jitter=st.floats(0, 1),
)
def test_exponential_stays_between_its_jitter_and_its_maximum(attempt, base, factor, jitter):
    backoff = exponential(base, factor=factor, max_seconds=3600, jitter=jitter)

    seconds = backoff(attempt)

    assert min(base, 3600) * (1 - jitter) <= seconds + 1e-6
    assert 0 <= seconds <= 3600


def test_exponential_can_be_pickled_for_handlers_that_run_in_processes():
    backoff = exponential(10)

    assert pickle.loads(pickle.dumps(backoff)) == backoff


@pytest.mark.parametrize(
    "options",
    [{"factor": 0.5}, {"jitter": 2}, {"jitter": -1}, {"max_seconds": math.inf}, {"factor": math.nan}],
)
def test_exponential_refuses_numbers_that_make_no_sense(options):
    with pytest.raises(ValueError, match="expected"):
        exponential(10, **options)


@given(st.integers() | st.floats() | st.decimals() | st.fractions() | st.text() | st.none())
def test_any_value_is_clamped_to_seconds_or_none(value):
    seconds = clamp_delay(value)

    assert seconds is None or 0 <= seconds <= RETRY_DELAY_SECONDS_MAX
