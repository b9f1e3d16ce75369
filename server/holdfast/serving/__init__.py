"""The process: configuration, lifecycle, health, metrics and logs."""
