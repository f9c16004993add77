"""Settings become parts; requests and results become HTTP; errors become replies."""
