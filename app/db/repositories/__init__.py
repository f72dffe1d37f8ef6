"""Every query; repositories take a session and return domain objects."""
