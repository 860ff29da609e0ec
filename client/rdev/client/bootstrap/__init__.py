"""First contact: from a login on a machine that knows nothing of rdev to an agent that answers."""
