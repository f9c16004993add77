"""VERBS accept and plan_delivery: check what a sender sends, then keep and queue it, or plan it."""
