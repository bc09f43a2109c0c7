"""The curve that an exported network's chroma follows.

An uncertain network predicts paler colours than the truth: for things that can have any colour it
predicts a faint brown. So chroma tells how certain it is. A curve that raises strong colours and
lowers faint ones makes pictures as colourful as one factor for all colours would, and they are
closer to the truth. It does for a network of ab what annealing does for one of bins (Zhang, Isola
and Efros, 2016, section 2.3). `gain` chooses it on validation photographs; it is part of the
exported file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rehue_training.network.graph import Graph, Value


@dataclass(frozen=True)
class Curve:
    """Chroma c becomes c * gain * (pale + (1 - pale) * c^2 / (c^2 + bend^2))."""

    gain: float = 1.0  # of the strongest colours
    pale: float = 1.0  # of the faintest, as a share of that
    bend: float = 15.0  # chroma half-way between the two, Lab units

    def __str__(self) -> str:
        faint = f", {self.pale:.2f} of it for the faintest, bend {self.bend:.0f}"
        return f"gain {self.gain:.2f}" + (faint if self.pale < 1 else "")

    def __call__(self, ab: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the curve to ab (..2 float32, Lab units)."""
        squares = np.square(ab).sum(axis=-1, keepdims=True)
        share = squares / (squares + np.float32(self.bend**2))
        factor = self.gain * (self.pale + (1 - self.pale) * share)
        return np.asarray(ab * factor, np.float32)

    def add_to_graph(self, graph: Graph, ab: Value, unit: float) -> Value:
        """Apply the curve in a graph to an output (N2hw, in multiples of `unit` Lab units)."""
        if self.pale == 1:
            scale = graph.add_constant("ab_unit", np.float32(unit * self.gain))
            return Value(graph.add_node("Mul", [ab.name, scale], "ab_lab"), ab.height, ab.width)
        scale = graph.add_constant("ab_unit", np.float32(unit))
        lab = graph.add_node("Mul", [ab.name, scale], "ab_plain")
        square = graph.add_node("Mul", [lab, lab], "ab_square")
        channels = graph.add_constant("channels", np.array([1], np.int64))
        squares = graph.add_node("ReduceSum", [square, channels], "chroma_square", keepdims=1)
        bend = graph.add_constant("bend_square", np.float32(self.bend**2))
        bent = graph.add_node("Add", [squares, bend], "chroma_square_bent")
        share = graph.add_node("Div", [squares, bent], "share")
        rise = graph.add_constant("rise", np.float32(self.gain * (1 - self.pale)))
        floor = graph.add_constant("floor", np.float32(self.gain * self.pale))
        risen = graph.add_node("Mul", [share, rise], "factor_rise")
        factor = graph.add_node("Add", [risen, floor], "factor")
        return Value(graph.add_node("Mul", [lab, factor], "ab_lab"), ab.height, ab.width)
