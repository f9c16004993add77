"""Queues: what a message says, which queue hears of what, and when something is tried again."""
