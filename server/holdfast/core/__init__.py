"""What the service decides: pure functions from state, command and time to a transaction or a refusal."""
