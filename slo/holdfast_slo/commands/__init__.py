"""Subcommands of `holdfast` that need objectives and verdicts only."""
