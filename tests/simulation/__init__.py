"""Seeded, deterministic simulation of replicas, store, network and clients, under a clock that only tests move."""
