"""All figures of the README: measured one after the other and written between its markers."""

import sys

from benchmarks import cli, drain, first_step, loading, measure, memory, place, training
from docs import markers

figures: list[measure.Figure] = []
for part in (cli, first_step, drain, training, memory, loading):
    print(f"{part.__name__} …", file=sys.stderr)
    figures += part.figures()
text = f"{measure.table(figures)}\n\n{measure.machine(dvc=place.version('dvc'))}"
markers.write("figures", text)
print(text)
