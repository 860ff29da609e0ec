"""Access to a host by ssh: one contract, and two implementations behind it."""
