"""Disks that containers write to."""
