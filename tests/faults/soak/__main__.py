"""The soak: real nodes, people, a broker and tiny jobs under random blows; then a history checker and the oracle.

python -m tests.faults.soak [--jobs 40] [--kills 40] [--seed N] [--database postgresql] [--report FILE] [--keep]
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.soak import report, run


def main() -> int:
    """Run one soak and print its report; the exit code is 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--jobs", type=int, default=report.Plan.jobs)
    parser.add_argument("--kills", type=int, default=report.Plan.kills)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - no secret
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default=report.Plan.database)
    parser.add_argument("--every", type=float, default=report.Plan.every, help="seconds between two blows at least")
    parser.add_argument("--report", type=Path, help="file to write the report to")
    parser.add_argument("--keep", action="store_true", help="keep the installation for a look")
    given = vars(parser.parse_args())
    to, keep = given.pop("report"), given.pop("keep")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    outcome = run.soak(report.Plan(**given), folder=folder)
    text = report.markdown(outcome)
    sys.stdout.write(text)
    if to:
        to.write_text(text, encoding="utf-8")
    if keep or outcome.faults:
        sys.stdout.write(f"kept: {folder}\n")
    else:
        shutil.rmtree(folder)
    return int(bool(outcome.faults))


if __name__ == "__main__":
    sys.exit(main())
