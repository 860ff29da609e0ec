"""Live control of running jobs: requests to the loops of all ranks, and why a job stands still."""
