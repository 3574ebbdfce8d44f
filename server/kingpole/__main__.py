"""`python -m kingpole`."""

import sys

from kingpole.cli import main

sys.exit(main())
