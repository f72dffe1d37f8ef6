"""Live updates: one websocket per browser tab, with topics.

The tab asks for topics, the server answers with JSON. State is latest-value: a viewer that is slow
sees fewer steps, never an old one. Log lines queue in the log's own follower, which is bounded and
says what it left out. docs/live.md has the messages.
"""
