"""A service to stand behind the gate, and `make run`, which puts one in front of it."""
