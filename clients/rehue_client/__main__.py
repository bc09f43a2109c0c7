"""``python -m rehue_client`` is the `rehue` command."""

import sys

from rehue_client.command import main

sys.exit(main())
