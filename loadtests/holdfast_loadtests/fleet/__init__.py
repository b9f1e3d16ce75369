"""A fleet at a Holdfast server: agents that work and vote, and callers who have them do so, each a process of its own.

`python -m holdfast_loadtests.fleet agents` and `… callers` are what experiments name under `processes`. Both write
histories, from which alone it is judged afterwards whether the service kept its promises.
"""
