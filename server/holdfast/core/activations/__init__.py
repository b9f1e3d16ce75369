"""Activations: pieces of work, each owned by one agent at a time and brought to an end."""
