"""Hypervisors behind one port (`port.py`); only `app.main` and `app.cli` name a concrete one."""
