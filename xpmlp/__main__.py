"""`python -m xpmlp`."""

import sys

from xpmlp.cli.main import main

sys.exit(main())
