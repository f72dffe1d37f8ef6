"""Use cases: what the dashboard, REST and the command line can do, and the supervisor of all VMs."""
