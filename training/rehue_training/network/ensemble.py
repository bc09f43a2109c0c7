"""Several networks in one graph: the mean of their answers, coarse ones enlarged along edges.

Networks that were trained apart err apart, so their mean is nearer to the truth than each. The
enlargement is a guided filter (He, Sun and Tang, "Guided Image Filtering", 2013): around every
pixel ab is a linear function of L, so that colours end where the lightness does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from rehue_training.network.graph import Graph, Value, add_network, add_resize


@dataclass(frozen=True)
class Member:
    """One look of one network at the photograph."""

    scope: str  # of the network's names in the graph
    network: keras.Model  # L (NHW1, 0..100) to ab / AB_RANGE, at any size
    side: int  # pixels of the picture that it looks at
    weight: float = 1.0


@dataclass(frozen=True)
class GuidedFilter:
    """Window and tolerance of the filter."""

    radius: int = 5  # pixels of the answer
    epsilon: float = 10.0  # variance of L (squares of Lab units): weaker edges are smoothed over

    def add_to_graph(self, graph: Graph, ab: Value, lightness: Value) -> Value:
        """ab (N2hw) with the edges of the lightness (N1hw, L) of the same size."""
        # L / 50 - 1: in FP16 the squares of L itself would hide its variance.
        scale = graph.add_constant("guide/scale", np.float32(1 / 50))
        offset = graph.add_constant("guide/offset", np.float32(-1))
        scaled = graph.add_node("Mul", [lightness.name, scale], "guide/scaled")
        guide = graph.add_node("Add", [scaled, offset], "guide/lightness")

        def mean(source: str, name: str) -> str:
            return _add_window_mean(graph, source, f"guide/mean_{name}", self.radius)

        def add(operator: str, first: str, second: str, name: str) -> str:
            return graph.add_node(operator, [first, second], f"guide/{name}")

        mean_guide, mean_ab = mean(guide, "lightness"), mean(ab.name, "ab")
        mean_square = mean(add("Mul", guide, guide, "square"), "square")
        mean_product = mean(add("Mul", guide, ab.name, "product"), "product")
        squared = add("Mul", mean_guide, mean_guide, "squared_mean")
        variance = add("Sub", mean_square, squared, "variance")
        multiplied = add("Mul", mean_guide, mean_ab, "multiplied_means")
        covariance = add("Sub", mean_product, multiplied, "covariance")
        epsilon = graph.add_constant("guide/epsilon", np.float32(self.epsilon / 50**2))
        slope = add("Div", covariance, add("Add", variance, epsilon, "tolerant"), "slope")
        level = add("Sub", mean_ab, add("Mul", slope, mean_guide, "explained"), "level")
        rise = add("Mul", mean(slope, "slope"), guide, "rise")
        return Value(add("Add", rise, mean(level, "level"), "filtered"), ab.height, ab.width)


@dataclass(frozen=True)
class TextureGate:
    """Less chroma where there is next to nothing in the whole picture.

    Networks answer the blue of a sky to a blank page, though nothing in it says so. Chroma is
    multiplied by T^2 / (T^2 + half^2). T, the picture's texture, is the mean square of the
    difference between L and its mean around each pixel.
    """

    half: float = 2.0  # texture (squares of Lab units) that leaves half of the chroma
    radius: int = 5  # pixels of the answer

    def add_to_graph(self, graph: Graph, ab: Value, lightness: Value) -> Value:
        """ab (N2hw) with less chroma if the lightness (N1hw, L) of the same size has no texture."""

        def add(operator: str, first: str, second: str, name: str) -> str:
            return graph.add_node(operator, [first, second], f"texture/{name}")

        around = _add_window_mean(graph, lightness.name, "texture/around", self.radius)
        detail = add("Sub", lightness.name, around, "detail")
        squared = add("Mul", detail, detail, "squared")
        texture = graph.add_node("GlobalAveragePool", [squared], "texture/mean")
        scale = graph.add_constant("texture/scale", np.float32(1 / self.half))
        one = graph.add_constant("texture/one", np.float32(1))
        ratio = add("Mul", texture, scale, "ratio")
        # 1 - 1 / (1 + r^2), not r^2 / (1 + r^2): in FP16 r^2 may be infinite.
        lost = add("Div", one, add("Add", add("Mul", ratio, ratio, "power"), one, "sum"), "lost")
        kept = add("Sub", one, lost, "kept")
        return Value(add("Mul", ab.name, kept, "gated"), ab.height, ab.width)


def _add_window_mean(graph: Graph, source: str, name: str, radius: int) -> str:
    """The mean of the window around every pixel; where the picture ends, of what is there."""
    width = 2 * radius + 1
    down = graph.add_node(
        "AveragePool", [source], f"{name}/down",
        kernel_shape=[width, 1], pads=[radius, 0, radius, 0],
    )  # fmt: skip
    return graph.add_node(
        "AveragePool", [down], name, kernel_shape=[1, width], pads=[0, radius, 0, radius]
    )  # fmt: skip


def add_ensemble(
    graph: Graph, members: Sequence[Member], entry: Value, side: int, edges: GuidedFilter
) -> Value:
    """ab / AB_RANGE (N2 x side x side): the members' weighted mean.

    Answers coarser than that are enlarged along the photograph's edges.

    Args:
        entry: L, N1HW, 0..100, square.
    """
    total = sum(member.weight for member in members)
    looks: dict[int, Value] = {}
    sums: dict[bool, str] = {}  # of the coarse answers, and of the others
    for member in members:
        if member.side not in looks:
            looks[member.side] = resize_to(graph, entry, member.side, f"look{member.side}")
        graph.scope, graph.prefix = member.scope, f"at{member.side}/"
        answer = add_network(graph, member.network, looks[member.side])
        coarse = answer.height < side
        answer = resize_to(graph, answer, side, f"enlarged{member.side}")
        share = graph.add_constant(f"share{member.side}", np.float32(member.weight / total))
        part = graph.add_node("Mul", [answer.name, share], "part")
        summed = sums.get(coarse)
        sums[coarse] = graph.add_node("Add", [summed, part], "sum") if summed else part
        graph.scope = graph.prefix = ""
    if True in sums:
        guide = resize_to(graph, entry, side, f"look{side}/guide")
        sums[True] = edges.add_to_graph(graph, Value(sums[True], side, side), guide).name
    parts = list(sums.values())
    mean = graph.add_node("Add", parts, "mean") if len(parts) > 1 else parts[0]
    return Value(mean, side, side)


def resize_to(graph: Graph, source: Value, side: int, name: str) -> Value:
    """A square picture at `side` pixels, bilinear."""
    if source.height == side:
        return source
    return add_resize(graph, source, side / source.height, name)
