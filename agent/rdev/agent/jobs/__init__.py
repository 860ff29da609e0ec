"""Jobs as the agent sees them: their directories, their supervisors, their states."""
