"""An organisation's own maps of Microsoft's Data integration toolkit, made into maps of ours."""
