"""The output of works on disk: written by the scheduler, read while it runs and after.

Each run has a folder, and each work in it a series of segments: ``<work>.000001.log`` holds lines as the work wrote
them, ``<work>.000001.idx`` says which numbers they have and when they came. A segment that is large enough is followed
by the next one; when all together are too large the oldest goes.
"""

from lightwork.logfiles.layout import LogRecord, latest_run
from lightwork.logfiles.reader import LogPage, LogReader
from lightwork.logfiles.writer import LogWriter, begin_run

__all__ = ["LogPage", "LogReader", "LogRecord", "LogWriter", "begin_run", "latest_run"]
