"""`python -m orchestrator` is `orch`."""

from orchestrator.cli.entry import main

main()
