"""Handoffs: work changes its owner in one revision, or not at all."""
