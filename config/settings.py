"""Settings: one TOML file, every value overridable from the environment; refused at start when anything is wrong.

The file is ``$VMFERRY_CONFIG``, else ``./vmferry.toml``, else ``/etc/vmferry/vmferry.toml``. A value ``a.b`` of it
is ``VMFERRY_A__B`` in the environment. Unknown keys are errors: a typing mistake never silently means "default".
What must not be seen there, such as a ``broker_url`` with its password, can be a secret: a file ``vmferry_broker_url``
in ``/run/secrets``, where container engines put them, or in ``$CREDENTIALS_DIRECTORY``, where systemd does.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

