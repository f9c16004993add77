"""Whole stories, from a sender's request to the rows.

A package, so that the route which its tests share ends with the last of them: an idle host still
asks its queues ten times a second.
"""
