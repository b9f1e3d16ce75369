"""Benchmarks: ours against a peer in alternating rounds of one run. Nothing is asserted here."""
