"""`python -m worker` is a node."""

import sys

from worker import node

sys.exit(node.main())
