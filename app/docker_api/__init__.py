"""The Docker Engine API: an ASGI application of its own, on servers of its own."""
