"""The commands of `python -m integration` that need no folder of their own."""
