"""The dashboard: server-rendered pages, their fragments, and one websocket per browser tab.

Calls services and knows nothing below them. Every page is a frozen dataclass handed to one
template; every action is a form that also works without JavaScript.
"""
