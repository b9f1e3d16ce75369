"""Generated from `proto/`; import path = proto path."""
