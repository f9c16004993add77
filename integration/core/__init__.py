"""What every other folder stands on: values, errors, HTTP, JSON, limits, the activity log."""
