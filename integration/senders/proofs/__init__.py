"""The schemes by which senders prove themselves: a module for each, and the registry of all."""
