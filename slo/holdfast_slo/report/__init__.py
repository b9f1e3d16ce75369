"""A run's verdict for each of its readers: a person, a pull request, a CI server, a program."""

from holdfast_slo.report.bundle import read_bundle, write_bundle, write_views
from holdfast_slo.report.timeline import FleetPoint, Timeline, TimelinePoint

__all__ = ["FleetPoint", "Timeline", "TimelinePoint", "read_bundle", "write_bundle", "write_views"]
