"""The helper's entry on the remote machine: ``python -I FOLDER COMMAND ...``. It stands beside `remote`."""

import importlib
import json
import sys

if sys.version_info < (3, 9) or sys.platform != "linux":
    found = "%s on %s" % (sys.version.split()[0], sys.platform)  # noqa: UP031 -- must run on old versions too
    print("lightwork-helper " + json.dumps({"error": "it needs Python 3.9 or newer on Linux, got Python " + found}))
    sys.exit(1)

# Import only what the command needs: a supervisor starts with each work.
sys.exit(importlib.import_module("remote." + sys.argv[1]).main(*sys.argv[2:]))
