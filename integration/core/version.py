"""The version of this app, as pyproject.toml has it, which is not deployed."""

VERSION = "0.1.0"
