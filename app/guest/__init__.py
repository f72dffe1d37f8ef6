"""The guest: its build (`image.py`), and talk with its agent (`channel.py`, `agent.py`)."""
