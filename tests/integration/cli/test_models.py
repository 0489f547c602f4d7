"""`orch models`: the networks and what each costs."""

import json

from orchestrator.core import networks
from tests.integration.cli.conftest import Orch


def test_a_pipe_gets_every_network_in_raw_numbers(orch: Orch) -> None:
    ran = orch("models")
    assert [row[0] for row in ran.rows] == list(networks.NETWORKS)
    wanted = ["densenet121_imagenet", "7978856", "2834161664", "224", "1000", "32", "6,12,24,16", "imagenet", "29"]
    assert wanted in ran.rows


def test_size_and_classes_change_what_is_counted(orch: Orch) -> None:
    plain, asked = orch("models").rows, orch("models", "--image-size", "448", "--classes", "2").rows
    of = {row[0]: row for row in plain}["densenet121"], {row[0]: row for row in asked}["densenet121"]
    assert of[1][3:5] == ["448", "2"]
    assert int(of[0][1]) - int(of[1][1]) == 998 * (1024 + 1)
    assert int(of[1][2]) - 1024 * 2 == 4 * (int(of[0][2]) - 1024 * 1000)  # twice the side, four times the work


def test_a_network_that_the_pictures_are_too_small_for_has_no_multiply_adds(orch: Orch) -> None:
    told = {
        model["name"]: model["macs"]
        for model in json.loads(orch("models", "--image-size", "28", "--json").out)["models"]
    }
    assert told["densenet121_imagenet"] is None
    assert told["densenet121"] > 0
