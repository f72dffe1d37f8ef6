"""A client of image registries by the distribution protocol, usable alone.

Sources: OCI distribution-spec v1.1; distribution (docs/spec/auth/token.md, manifest-v2-2.md).
"""
