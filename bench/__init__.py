"""Benchmarks: each prints one JSON line per result, and measures a peer in the same run."""
