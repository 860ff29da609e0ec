"""Environments of this machine: found, chosen for a job, activated, made from a lock file."""
