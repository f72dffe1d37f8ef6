"""The record of what exists: SQLAlchemy models, repositories, migrations at boot.

Logs and statistics live elsewhere, in files of their own.
"""
