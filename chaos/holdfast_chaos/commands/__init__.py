"""The harness's subcommands of `holdfast`."""
