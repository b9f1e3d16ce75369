"""Commands for people, over the client: what is there, and what operators decide."""
