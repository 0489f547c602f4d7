"""A process that is asked either answers, or is told to have failed."""

import pytest

from orchestrator import config, errors
from orchestrator.service import asking


def test_a_process_that_dies_with_a_traceback_has_not_answered(settings: config.Settings) -> None:
    # Python ends with 1 for whatever was not foreseen, such as an import that fails.
    with pytest.raises(errors.OrchError, match="failed") as failed:
        list(asking.ask(settings, "worker.nonesuch", {}))
    assert "No module named worker.nonesuch" in str(failed.value.why)
