"""Write the golden files anew: `python -m tests.golden`, or `make golden`."""

import sys

from tests.golden import files

if __name__ == "__main__":
    faults = files.refused()
    if faults:
        sys.exit("\n".join(["Raise views.SCHEMA_VERSION first: readers of these would break.", *faults]))
    files.write()
