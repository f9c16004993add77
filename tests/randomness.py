"""How random cases are chosen: the same ones in every run, or new ones and ten times as many.

`make test` and `make check` must not fail by chance, so they try the same cases each time.
`make nightly` sets TEST_SEED to a number that has not been used before, and prints it. The same
number gives the same cases again: `make nightly SEED=...`.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings

SEED = os.environ.get("TEST_SEED", "")
FACTOR = 10 if SEED else 1

PROFILE = "nightly" if SEED else "usual"


def register_profiles() -> None:
    """Tell hypothesis how many examples a test has where it does not say so, and which."""
    settings.register_profile(
        "usual",
        derandomize=True,
        deadline=None,  # other work on the machine is no failure
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
    settings.register_profile(
        "nightly", settings.get_profile("usual"), derandomize=False, max_examples=100 * FACTOR
    )


def limit_examples(usual: int, **more: Any) -> settings:
    """Try so many examples in a usual run, and more of them in a nightly one."""
    return settings(max_examples=usual * FACTOR, **more)


def make_seed(name: object) -> str:
    """Return the seed for what has this name."""
    return f"{SEED} {name}".lstrip()


def make_random(name: object) -> Random:
    """Return a source of random numbers for what has this name."""
    return Random(make_seed(name))
