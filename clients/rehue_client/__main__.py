"""Run the `rehue` command with ``python -m rehue_client``."""

import sys

from rehue_client.command import main

sys.exit(main())
