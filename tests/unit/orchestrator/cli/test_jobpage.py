from typing import Any

import pytest

from orchestrator.cli import jobpage
from orchestrator.core import specs


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"weights": "/srv/w.pth"}, ", from /srv/w.pth"),
        ({"weights": "job:k3f9m2qa", "train": "head"}, ", from job k3f9m2qa, head alone"),
        (
            {"weights": "imagenet", "network": "densenet121_imagenet", "head_epochs": 2},
            ", from imagenet, head first for 2 epochs",
        ),
        (
            {"weights": "/w.pth", "head_epochs": 1, "train": "last-block"},
            ", from /w.pth, head first for 1 epoch, last block alone",
        ),
    ],
)
def test_a_recipe_says_what_it_starts_from_and_what_learns(fields: dict[str, Any], said: str) -> None:
    assert jobpage._start(specs.JobSpec(**fields)) == said
