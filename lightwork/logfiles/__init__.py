"""The output of works on disk. The scheduler writes it; it can be read during the run and afterwards.

Each run has a folder, and each work has a series of segments in it. ``<work>.000001.log`` has the lines of the work,
unchanged. ``<work>.000001.idx`` has their numbers and times. When a segment is large enough, the next one begins. When
all segments of a work together are too large, the oldest is deleted.
"""

from lightwork.logfiles.layout import LogRecord, latest_run
from lightwork.logfiles.reader import LogPage, LogReader
from lightwork.logfiles.writer import LogWriter, begin_run

__all__ = ["LogPage", "LogReader", "LogRecord", "LogWriter", "begin_run", "latest_run"]
