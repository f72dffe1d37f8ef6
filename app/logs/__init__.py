"""Logs of all containers: one SQLite file per UTC day, written in groups, sealed into chunks.

Lines are committed before anybody acknowledges them, first to a plain tail table, then sealed into
compressed chunks with a full-text row each. Sequence numbers belong to a container, not to a file.
"""
