"""The wire; the modules here are generated from the protos beside them."""
