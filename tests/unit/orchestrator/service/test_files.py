"""Which file system a folder lies on."""

from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.service import files


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    (tmp_path / "share" / "fast disk").mkdir(parents=True)
    table = tmp_path / "mounts"
    rows = [
        "rootfs / ext4 rw 0 0",
        f"server:/x {tmp_path}/share nfs4 rw 0 0",
        f"/dev/b {tmp_path}/share/fast\\040disk xfs rw 0 0",
    ]
    table.write_text("\n".join(rows), encoding="utf-8")
    return table


@pytest.mark.parametrize(
    ("below", "kind"), [("elsewhere/deep", "ext4"), ("share/home/new", "nfs4"), ("share/fast disk/home", "xfs")]
)
def test_the_innermost_mount_counts_also_for_folders_to_be_made(
    tmp_path: Path, mounts: Path, below: str, kind: str
) -> None:
    assert files.kind(tmp_path / below, mounts) == kind


def test_a_home_on_a_network_file_system_is_refused(tmp_path: Path, mounts: Path) -> None:
    with pytest.raises(errors.InvalidSetting, match="network file system"):
        files.refuse_network(tmp_path / "share" / "home", mounts)
    files.refuse_network(tmp_path / "home", mounts)


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert files.free(tmp_path / "not" / "yet") > 0
