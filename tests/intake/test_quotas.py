"""A sender may send so many requests and bytes a minute; whoever sends more is told when to go on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Rejected
from integration.intake.quotas import Quotas
from integration.senders.model import Quota, Sender


@dataclass
class Watch:
    """A clock that is moved by hand."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


def sender(name: str = "lab", **quota: int) -> Sender:
    return Sender(name=name, quota=Quota(**quota))


def refusal(quotas: Quotas, who: Sender, size: int = 1) -> Rejected:
    with pytest.raises(Rejected) as caught:
        quotas.take(who, size)
    return caught.value


def test_the_request_after_the_last_one_of_a_minute_is_told_when_to_come() -> None:
    watch = Watch()
    quotas, lab = Quotas(watch), sender(requests_per_minute=3)
    for _ in range(3):
        quotas.take(lab, 10)
    error = refusal(quotas, lab)
    assert (error.status, error.headers) == (429, {"Retry-After": "20"})
    watch.seconds += 20
    quotas.take(lab, 10)


def test_one_sender_does_not_take_from_another() -> None:
    quotas = Quotas(Watch())
    quotas.take(sender("a", requests_per_minute=1), 1)
    quotas.take(sender("b", requests_per_minute=1), 1)
    refusal(quotas, sender("a", requests_per_minute=1))


def test_a_refused_request_takes_nothing() -> None:
    watch = Watch()
    quotas, lab = Quotas(watch), sender(requests_per_minute=10, bytes_per_minute=600)
    quotas.take(lab, 600)
    for _ in range(20):
        refusal(quotas, lab)
    watch.seconds += 30
    for _ in range(9):
        quotas.take(lab, 1)


def test_one_delivery_larger_than_a_minute_s_bytes_is_taken_and_the_next_one_waits() -> None:
    watch = Watch()
    quotas, lab = Quotas(watch), sender(bytes_per_minute=100)
    quotas.take(lab, 250)
    assert refusal(quotas, lab).headers == {"Retry-After": "91"}
    watch.seconds += 91
    quotas.take(lab, 1)


def test_without_a_quota_everything_is_taken() -> None:
    quotas = Quotas(Watch())
    for _ in range(1000):
        quotas.take(sender(), 10**9)


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 80)), max_size=60),
    st.integers(1, 50),
    st.integers(10, 200),
)
def test_no_minute_has_more_than_twice_the_quota(
    asked: list[tuple[float, int]], requests: int, size: int
) -> None:
    watch = Watch()
    quotas = Quotas(watch)
    lab = sender(requests_per_minute=requests, bytes_per_minute=size)
    taken: list[tuple[float, int]] = []
    for pause, amount in asked:
        watch.seconds += pause
        try:
            quotas.take(lab, amount)
        except Rejected:
            continue
        taken.append((watch.seconds, amount))
    for start, _ in taken:
        minute = [amount for time, amount in taken if start <= time < start + 60]
        assert len(minute) <= 2 * requests
        # A delivery that is larger than the quota is taken from a full bucket.
        assert sum(minute) - max(minute) <= 2 * size
