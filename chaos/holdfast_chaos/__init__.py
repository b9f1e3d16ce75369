"""Experiments: real faults, proof that each one bit, and the run that composes load, faults and verdict."""
