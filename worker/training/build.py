"""What torch was built for, in a process that the command line asks: `orch doctor` compares it with the GPUs."""

import sys

import torch

from worker import answers


def main() -> int:
    """Answer the request on standard input; return the exit code."""
    return answers.serve(answers.Request, _tell)


def _tell(_: answers.Request, say: answers.Say) -> None:
    say({"version": torch.__version__, "cuda": torch.version.cuda, "codes": torch.cuda.get_arch_list()})


if __name__ == "__main__":
    sys.exit(main())
