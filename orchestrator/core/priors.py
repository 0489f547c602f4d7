"""Speeds that orch brings along, for an installation that has trained nothing yet.

Another machine is faster or slower; how many times one recipe is as fast as another says more.
"""

from orchestrator.core import specs, speed

#: Whose speeds they are: of an otherwise idle machine, in fp32.
#: `python -m benchmarks.speeds` measures them and prints these rows.
MACHINE = "2 cores of an Intel Xeon with torch 2.14"

#: Network, side in pixels, batch, layout, whether compiled: seconds a picture of a training step.
_SECONDS = {
    ("densenet121", 64, 16, "contiguous", False): 0.1438,
    ("densenet121", 64, 16, "contiguous", True): 0.1031,
    ("densenet121", 64, 16, "channels_last", False): 0.1255,
    ("densenet121", 64, 16, "channels_last", True): 0.09833,
    ("densenet121", 224, 4, "contiguous", False): 1.858,
    ("densenet121", 224, 4, "contiguous", True): 1.139,
    ("densenet121", 224, 4, "channels_last", False): 1.494,
    ("densenet121", 224, 4, "channels_last", True): 1.107,
    ("densenet121_imagenet", 64, 16, "contiguous", False): 0.01489,
    ("densenet121_imagenet", 64, 16, "contiguous", True): 0.01235,
    ("densenet121_imagenet", 64, 16, "channels_last", False): 0.01331,
    ("densenet121_imagenet", 64, 16, "channels_last", True): 0.01293,
    ("densenet121_imagenet", 224, 16, "contiguous", False): 0.1226,
    ("densenet121_imagenet", 224, 16, "contiguous", True): 0.08232,
    ("densenet121_imagenet", 224, 16, "channels_last", False): 0.1048,
    ("densenet121_imagenet", 224, 16, "channels_last", True): 0.08231,
    ("densenet_bc_100_12", 32, 64, "contiguous", False): 0.02578,
    ("densenet_bc_100_12", 32, 64, "contiguous", True): 0.01456,
    ("densenet_bc_100_12", 32, 64, "channels_last", False): 0.02264,
    ("densenet_bc_100_12", 32, 64, "channels_last", True): 0.0145,
    ("densenet_bc_40_12", 16, 32, "contiguous", False): 0.001833,
    ("densenet_bc_40_12", 16, 32, "contiguous", True): 0.001309,
    ("densenet_bc_40_12", 16, 32, "channels_last", False): 0.00158,
    ("densenet_bc_40_12", 16, 32, "channels_last", True): 0.001345,
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
