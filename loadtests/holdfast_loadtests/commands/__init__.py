"""Commands of the load engine."""
