"""Use cases, and the supervisor of all VMs; the faces call these and nothing below."""
