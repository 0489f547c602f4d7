"""Speeds that orch brings along, for an installation that has trained nothing yet.

Another machine is faster or slower; how many times one recipe is as fast as another says more.
"""

from orchestrator.core import specs, speed

#: Whose speeds they are: of an otherwise idle machine, in fp32.
#: `python -m benchmarks.speeds` measures them and prints these rows.
MACHINE = "2 cores of an AMD EPYC with torch 2.14"

#: Network, side in pixels, batch, layout, whether compiled: seconds a picture of a training step.
_SECONDS = {
    ("densenet121", 64, 16, "contiguous"): 1 / 4.35,
    ("densenet121", 64, 16, "channels_last"): 1 / 5.1,
    ("densenet121", 224, 4, "contiguous"): 1 / 0.38,
    ("densenet121", 224, 4, "channels_last"): 1 / 0.365,
    ("densenet121_imagenet", 224, 16, "contiguous"): 1 / 3.9,
    ("densenet121_imagenet", 224, 16, "channels_last"): 1 / 4.7,
}

TABLE = tuple(
    speed.Measured(
        spec=specs.parse({"network": network, "image_size": size, "batch_size": batch}),
        layout=layout,
        precision="fp32",
        compiled=compiled,
        train=(seconds,),
        host=MACHINE,
        here=False,
    )
    for (network, size, batch, layout, compiled), seconds in _SECONDS.items()
)
