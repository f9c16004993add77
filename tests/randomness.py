"""How random cases are chosen, and how many: the same ones in every run, or new ones.

| command | cases | which |
|---|---|---|
| `make test` | a third of the usual number | the same in each run |
| `make check` | the usual number | the same in each run |
| `make nightly` | ten times the usual number, or as many as a test says | new ones, by a seed that it prints |

The first two must not fail by chance. `make nightly SEED=...` tries the cases of that seed again.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings

SEED = os.environ.get("TEST_SEED", "")
FACTOR = float(os.environ.get("TEST_FACTOR", "1"))  # times the usual number of cases

PROFILE = "nightly" if SEED else "usual"


def scale(usual: int) -> int:
    """Return how many cases to try where it is usually this many."""
    return max(1, round(usual * FACTOR))


def register_profiles() -> None:
    """Tell hypothesis how many examples a test has where it does not say so, and which."""
    settings.register_profile(
        "usual",
        derandomize=True,
        max_examples=scale(100),
        deadline=None,  # other work on the machine is no failure
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
    settings.register_profile("nightly", settings.get_profile("usual"), derandomize=False)


def limit_examples(usual: int, *, nightly: int | None = None, **more: Any) -> settings:
    """Try as many examples, where it is usually this many. `nightly`: where a seed is given."""
    number = scale(usual) if nightly is None or not SEED else nightly
    return settings(max_examples=number, **more)


def make_seed(name: object) -> str:
    """Return the seed for what has this name."""
    return f"{SEED} {name}".lstrip()


def make_random(name: object) -> Random:
    """Return a source of random numbers for what has this name."""
    return Random(make_seed(name))
