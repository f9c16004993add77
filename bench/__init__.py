"""Measure the relay on this machine. Each result is a ratio to a baseline of the same run."""
