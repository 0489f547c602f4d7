"""The options of a training, all at once: what has to hold for each has to hold for them together."""

from typing import Any

#: On pictures of two classes, five of each; `patience` may end it before its last epoch.
ALL: dict[str, Any] = {
    "optimizer": "sgd",
    "nesterov": True,
    "weight_decay": 1e-3,
    "schedule": "cosine",
    "warmup_epochs": 1.5,
    "clip_norm": 1.0,
    "batch_size": 2,
    "accumulate": 2,
    "label_smoothing": 0.1,
    "ema": 0.9,
    "mixup": 0.4,
    "cutmix": 1.0,
    "randaugment": 2,
    "pipeline": "fast",
    "progressive_sizes": (8,),
    "progressive_until": (0.3,),
    "image_size": 12,
    "dropout": 0.2,
    "epochs": 6,
    "patience": 2,
}
