"""The commands of `python -m integration`, but for those with a folder of their own."""
