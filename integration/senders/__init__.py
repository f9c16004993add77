"""Senders: who they are by `senders.toml`, how they prove it, and what they may do."""
