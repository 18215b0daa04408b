"""What runs apart from the scheduler, beside works: it imports the standard library and itself only.

All of it is sent, as it is, to machines that SSH reaches. It needs Python 3.9, and Linux but for `kept` and `venv`,
which make and keep environments on the scheduler's own machine too. ``serve`` answers the requests of one connection,
``supervise`` looks after one launch, ``venv`` makes one virtual environment. All that is known is in files, see `files`
and `kept`; so none of them has to live for another to go on.
"""
