"""How far the model is explored: a little, the same each time, or with HYPOTHESIS_PROFILE=deep."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "usual", max_examples=150, deadline=None, derandomize=True, suppress_health_check=_SLOW
)
settings.register_profile(
    "deep",
    max_examples=5000,
    deadline=None,
    suppress_health_check=_SLOW,
    phases=[Phase.reuse, Phase.generate, Phase.shrink],
)

EXPLORED = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))
