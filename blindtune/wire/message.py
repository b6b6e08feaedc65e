"""What everybody knows of a message between hospitals, the server included: how it begins and is called."""

from __future__ import annotations

import re

MAGIC = b"BTM1"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
"""Of a message's stage, item and sender."""
