"""A state machine over the real store on a real SQLite file: people, two nodes, a lossy queue, and time.

Only the work of the processes is made up, and the clock. What orch says is compared with an account of our own; at the
end all that is frozen is left behind, new workers come, and every job that is not paused has to end, once.

python -m tests.faults.machine [--examples 1400] [--steps 50] [--seed N]
"""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from orchestrator import config
from orchestrator.store import sql
from tests.faults.machine import play


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.machine")
    parser.add_argument("--examples", type=int, default=1400)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as home:
        sql.open_store(config.Settings(home=Path(home))).close()
        play.run(Path(home) / "orch.db", examples=given.examples, steps=given.steps, seed=given.seed)
    sys.stdout.write(f"{given.examples} histories of up to {given.steps} steps: all holds\n")


if __name__ == "__main__":
    main()
