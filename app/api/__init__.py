"""Slipway's own REST interface, /api/v1: what the dashboard can do, a script can do."""
