"""``python -m framecast`` is the command line, which torchrun needs."""

import sys

from framecast.cli import main

sys.exit(main())
