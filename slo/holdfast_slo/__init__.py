"""Objectives: OpenSLO files, their evaluation against Prometheus, the statistics of a verdict, and its report."""
