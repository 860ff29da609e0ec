"""Reading what jobs print and report, without ever touching them."""
