"""Debug sessions: one adapter process, one proxy and one client per attached rank."""
