"""Adapters to the libraries whose trainings are joined, one file each.

An adapter is loaded when a trainer of its library is joined, and imports nothing of the library: it
works with what the trainer brings and with what is in `sys.modules` because the trainer is there.
"""
