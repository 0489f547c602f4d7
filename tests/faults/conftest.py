"""Fault tests drive the command line in this process, as its own tests do."""

from tests.integration.cli.conftest import orch, orch_in

__all__ = ["orch", "orch_in"]
