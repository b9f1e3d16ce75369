"""Holdfast: a gRPC registry and coordination service for fleets of agents.

This package holds the service, its client and the `holdfast` command. It knows nothing of the harness, which lives in
`holdfast_chaos`, `holdfast_loadtests` and `holdfast_slo`.
"""

from importlib.metadata import version

__version__ = version("holdfast")
