"""What lies on the host's disk: the data directory, scratch disks."""
