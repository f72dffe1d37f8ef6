"""The guest: how to build it (`image.py`) and how to talk to its agent (`protocol.py`, `channel.py`, `agent.py`)."""
