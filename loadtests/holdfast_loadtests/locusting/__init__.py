"""The engine under Locust: Locust hands out users, shows and stores results; the engine makes the calls.

`users` and what it imports import Locust, which patches the interpreter for gevent: only locustfiles import them. The
engine therefore runs in a process of its own beside each Locust worker. What is pure here imports no Locust.
"""
