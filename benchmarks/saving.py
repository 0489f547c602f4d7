"""P10: how long a training stands still for a checkpoint, against torch.save and fsync of the same state.

python -m benchmarks.saving [--quick] [--write]
"""

import json
import subprocess
import sys

from benchmarks import measure, place
from worker import children

#: A checkpoint of about 80 MB: weights, and two numbers of the optimizer for each.
NETWORK, QUICK = "densenet121", "densenet_tiny"

#: Shares of the peer's to reach.
REACH = {"the training stands still": 0.15, "CPU seconds, those beside the steps as well": 1.0}


def figures(*, quick: bool = False) -> list[measure.Figure]:
    """Write in turns what a step has left, in a process with the variables of the fork server."""
    network = QUICK if quick else NETWORK
    command = [sys.executable, "-m", "benchmarks.checkpoints", network]
    env = place.clean_environment(**children.FORK_SERVER_ENVIRONMENT)
    done = subprocess.run(command, cwd=place.ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    ours, theirs = json.loads(done.stdout)
    return [
        measure.Figure(
            id="P10",
            what=f"a checkpoint of `{network}`: {what}",
            peer="`torch.save` and fsync",
            ours=tuple(our),
            theirs=tuple(their),
            reach=reach,
            shown=measure.milliseconds,
        )
        for (what, reach), our, their in zip(REACH.items(), ours, theirs, strict=True)
    ]


if __name__ == "__main__":
    measure.command("benchmarks.saving", figures)
