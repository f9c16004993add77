"""What every other folder uses: values, errors, HTTP, JSON, rate limits, the activity log."""
