"""``python -m lightwork`` runs the ``lightwork`` command."""

from __future__ import annotations

from lightwork.cli import main

if __name__ == "__main__":
    main()
