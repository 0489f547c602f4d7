"""What pictures become: in the pipeline `compat` the notebook's bits, in `fast` the same crops to one level."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from orchestrator.core import specs
from tests.support import pictures
from worker.data import augment, pixels

PICTURE = np.array(pictures.noise(3, size=(61, 43)))
SEEDS = range(12)


def recipe(**fields: Any) -> specs.JobSpec:
    return specs.parse({"network": "densenet_tiny", "image_size": 16, **fields})


def reference(spec: specs.JobSpec, seed: int) -> torch.Tensor:
    """Return what torchvision's transforms make of the picture, put together as in the notebook."""
    crop: list[Any] = [transforms.RandomResizedCrop(spec.image_size, scale=spec.crop_scale)]
    if spec.crop_padding:
        mean = tuple(round(255 * value) for value in spec.mean)
        crop = [
            transforms.Resize(spec.image_size),
            transforms.RandomCrop(spec.image_size, padding=spec.crop_padding, fill=mean),
        ]
    steps = [
        *crop,
        *([transforms.RandomHorizontalFlip()] if spec.flip else []),
        *([v2.RandAugment(spec.randaugment, spec.randaugment_magnitude)] if spec.randaugment else []),
        transforms.ToTensor(),
        transforms.Normalize(spec.mean, spec.std),
    ]
    with augment.seeded(spec.seed, 1, seed):
        transformed: torch.Tensor = transforms.Compose(steps)(Image.fromarray(PICTURE))
    return transformed


#: Every option that a training picture shows.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"flip": False, "crop_scale": (0.5, 1.0)},
    {"randaugment": 3, "randaugment_magnitude": 5},
    {"crop_padding": 5},
    {"crop_padding": 2, "randaugment": 1},
    {"crop_scale": (1.0, 1.0)},  # seldom fits: what happens after the last try
    {"image_size": 80},
]


@pytest.mark.parametrize("fields", OPTIONS)
def test_compat_is_torchvision_over_pillow_to_the_bit(fields: dict[str, Any]) -> None:
    spec = recipe(**fields)
    ours = augment.Augmentation(spec)
    for seed in SEEDS:
        (made,) = ours.normalised([ours.training(PICTURE, epoch=1, index=seed)])
        assert torch.equal(made, reference(spec, seed))
        assert made.is_contiguous()


@pytest.mark.parametrize("fields", [fields for fields in OPTIONS if "randaugment" not in fields])
def test_fast_is_the_same_picture_within_one_level(fields: dict[str, Any]) -> None:
    ours, theirs = (augment.Augmentation(recipe(pipeline=name, **fields)) for name in ("fast", "compat"))
    for seed in SEEDS:
        made, wanted = (one.training(PICTURE, epoch=1, index=seed).astype(int) for one in (ours, theirs))
        assert np.abs(made - wanted).max() <= 1
    made, wanted = (one.validation(PICTURE).astype(int) for one in (ours, theirs))
    assert np.abs(made - wanted).max() <= 1


@pytest.mark.parametrize("size", [1, 16, 80])
@pytest.mark.parametrize("crop", [(1, 1), (40, 1), (16, 16), (16, 17), (61, 43), (300, 80)])
def test_fast_resizes_as_torchvision_does_to_the_bit(crop: tuple[int, int], size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (crop[0] + 2, crop[1] + 3, 3), dtype=np.uint8)
    part = noise[1:-1, 2:-1]
    theirs = functional.resize(torch.from_numpy(part).permute(2, 0, 1), [size, size], antialias=True)
    made = augment.Augmentation(recipe(pipeline="fast"))._square(part, size)
    assert isinstance(made, torch.Tensor)
    assert torch.equal(made, theirs)


@pytest.mark.parametrize("threads", [1, 2])
def test_mirroring_starts_no_threads_beside_those_that_load(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    by_torch: list[int] = []
    flip = torch.Tensor.flip

    def noting(planes: torch.Tensor, dimension: int) -> torch.Tensor:
        by_torch.append(dimension)
        return flip(planes, dimension)

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.Tensor, "flip", noting)
    spec = recipe(image_size=120)
    ours = augment.Augmentation(spec)
    for seed in SEEDS:
        (made,) = ours.normalised([ours.training(PICTURE, epoch=1, index=seed)])
        assert torch.equal(made, reference(spec, seed))
    assert bool(by_torch) == (threads == 1)


def test_the_pipelines_are_two() -> None:
    ours, theirs = (augment.Augmentation(recipe(pipeline=name)) for name in ("fast", "compat"))
    made = [[one.training(PICTURE, epoch=1, index=seed) for seed in SEEDS] for one in (ours, theirs)]
    assert not np.array_equal(np.stack(made[0]), np.stack(made[1]))


def test_fast_has_randaugment_with_the_same_operations() -> None:
    plain, augmented = (augment.Augmentation(recipe(pipeline="fast", randaugment=count)) for count in (0, 2))
    made = [(one.training(PICTURE, epoch=1, index=seed) for one in (plain, augmented)) for seed in SEEDS]
    changed = [not np.array_equal(left, right) for left, right in made]
    assert len(SEEDS) / 2 < sum(changed) <= len(SEEDS)


def test_what_is_drawn_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    augment.Augmentation(recipe(randaugment=2)).training(PICTURE, epoch=1, index=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(40, 31), (300, 20), (20, 300)])  # the last two: no crop of the whole fits
def test_boxes_are_those_of_torchvision(size: tuple[int, int]) -> None:
    height, width = size
    for seed in range(200):
        ours = augment.random_box(torch.Generator().manual_seed(seed), height, width, scale=(0.5, 1.0))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            image = torch.empty(3, height, width)
            theirs = transforms.RandomResizedCrop.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3])
        assert ours == theirs


def jpeg(picture: Image.Image, **how: Any) -> bytes:
    return pictures.encoded(picture, "JPEG", **how)


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (53, 75, 3), dtype=np.uint8))
FILES = {
    "4:2:0": jpeg(NOISE, subsampling="4:2:0"),
    "4:2:2": jpeg(NOISE, subsampling="4:2:2"),
    "4:4:4": jpeg(NOISE, subsampling="4:4:4", quality=97),
    "4:1:1": jpeg(NOISE, subsampling="4:1:1"),
    "progressive": jpeg(NOISE, progressive=True, quality=30),
    "grey": jpeg(NOISE.convert("L")),
    "CMYK": jpeg(NOISE.convert("CMYK")),
    "RGB": jpeg(NOISE, keep_rgb=True),
    "PNG": pictures.encoded(NOISE.convert("RGBA"), "PNG"),
    "GIF": pictures.encoded(NOISE.convert("P"), "GIF"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_pillows_to_the_bit_whoever_decodes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pixels.decoded(FILES[name])
    assert np.array_equal(found, pixels._by_pillow(FILES[name]))
    assert found.flags.writeable
    monkeypatch.setattr(pixels, "_by_pillow", lambda _: None)
    by_pillow = pixels.decoded(FILES[name]) is None
    assert by_pillow == (name in {"CMYK", "RGB", "PNG", "GIF"})


def test_where_the_decoders_disagree_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    other = np.zeros((53, 75, 3), dtype=np.uint8)
    monkeypatch.setattr(pixels, "_by_turbo", lambda _: other)
    pixels._agree.cache_clear()
    try:
        assert np.array_equal(pixels.decoded(FILES["4:2:0"]), pixels._by_pillow(FILES["4:2:0"]))
    finally:
        pixels._agree.cache_clear()


def test_a_damaged_picture_is_pillows_to_judge() -> None:
    with pytest.raises(OSError, match="truncated"):
        pixels.decoded(FILES["4:2:0"][:-200])
