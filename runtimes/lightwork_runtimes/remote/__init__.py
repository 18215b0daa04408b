"""The helper: code that runs on remote machines beside the works. It imports only the standard library and itself.

The whole package is sent unchanged to machines that SSH reaches. It needs Python 3.9 and Linux, except `kept` and
`venv`, which also make and keep environments on the scheduler's machine. ``serve`` answers the requests of one
connection, ``supervise`` looks after one launch, ``venv`` makes one virtual environment. All facts are in files, see
`files` and `kept`, so each of these processes can go on if another one dies.
"""
