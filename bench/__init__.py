"""Measurements of the route on this machine, each against a named baseline in the same run."""
