"""Slipway: every Linux container in a micro-VM of its own."""
