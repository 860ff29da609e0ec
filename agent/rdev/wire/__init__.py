"""What processes on one machine say to each other. Standard library only, Python 3.10 on."""
