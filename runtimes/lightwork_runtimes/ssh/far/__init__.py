"""What runs on the far side: sent there as it is, so it imports the standard library and itself only.

It needs Python 3.9 and Linux. ``serve`` answers the requests of one connection, ``supervise`` looks after one
launch, ``venv`` makes one virtual environment. All that is known is in files, see `files`; so none of them
has to live for another to go on.
"""
