"""The process that makes the load: `python -m holdfast_loadtests.worker`, started by `engine`.

Locust runs on gevent, which replaces the interpreter's blocking calls: hence a process of its own, and hence these
imports in this order, before anything else is loaded.
"""

from gevent import monkey

monkey.patch_all()

from grpc.experimental import gevent as grpc_gevent  # noqa: E402

grpc_gevent.init_gevent()

from holdfast_loadtests.session import main  # noqa: E402

if __name__ == "__main__":
    main()
