"""Holds: who has a lock or leads an election, from when to when. Both are the same machine."""
