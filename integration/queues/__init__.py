"""Queues: what a message says, how it is sent, and when failed work is tried again."""
