"""The process that makes the load: `python -m holdfast_loadtests.worker`, started by `engine`.

A process of its own: its event loop is not held up by the harness, and its CPU share is the generator's alone.
"""

from holdfast_loadtests.session import main

if __name__ == "__main__":
    main()
