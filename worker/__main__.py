"""`python -m worker` is a node."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C during the imports ends it without a traceback

from worker import node

sys.exit(node.main())
