"""Images on disk: the OCI content store, imports, and layers as filesystem images.

Usable alone: knows nothing of containers, VMs or databases.
"""
