"""A locustfile to begin with; works against `holdfast serve`, and tells what to change for a service of yours.

    locust -f example.py --host 127.0.0.1:50051 Lists      # by the engine, as many users as the page says
    locust -f example.py --host 127.0.0.1:50051 Scripted   # by users in Python

Copy it, and put your own methods, requests and checks in their places.
"""

from locust import between, task

from holdfast_loadtests.locusting.users import EngineUser, GrpcUser

REGISTRY = "holdfast.registry.v1.AgentRegistryService"
LIST = f"{REGISTRY}/ListAgents"


class Lists(EngineUser):
    """Each user lists the agents of some namespace, again and again. With `arrivals` the load would be an open one."""

    load = {"mix": [{"call": LIST, "request": {"parent": "namespaces/n-{{int(1, 9)}}"}}]}  # noqa: RUF012  # kept plain


class Scripted(GrpcUser):
    """Looks for an agent that is not there, which is right, and lists agents."""

    wait_time = between(0.1, 0.5)

    @task
    def look(self) -> None:
        """Two calls, one judged by hand."""
        wanted = {"name": "namespaces/default/agents/nobody"}
        with self.call(f"{REGISTRY}/GetAgent", wanted, catch_response=True) as reply:
            if reply.code == "NotFound":
                reply.success()
        self.call(LIST, {"parent": "namespaces/default"})
