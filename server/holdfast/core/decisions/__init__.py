"""Decisions: opened, voted on, ended exactly once."""
