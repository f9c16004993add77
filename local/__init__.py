"""Stand-ins for the neighbours, so that everything runs on a laptop."""
