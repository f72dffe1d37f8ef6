"""Slipway: every Linux container in a micro-VM of its own."""

__version__ = "0.1.0"
