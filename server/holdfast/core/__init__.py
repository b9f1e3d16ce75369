"""What the service decides, apart from how: pure functions from state, command and time to a transaction or a refusal."""
