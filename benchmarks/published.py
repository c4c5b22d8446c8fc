"""The baseline of the speed benchmarks: the published models' sequence of operations, in plain PyTorch modules.

Four models of the paper, executed as the code released with it executes them: frames in channels-first memory, one
convolution for the input and another for the hidden state of every gate block, each with its own bias, the output
gate's kernels apart, tanh by torch.tanh. The parameters bear the released names, so a released state dict loads as it
is; ``benchmarks/speed.py`` checks the outputs against the reference vectors before it times anything.

Written from the equations in the docstrings of ``framecast.cells``; nothing is taken from the released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, ...]


def _conv(sources: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(sources, outputs, kernel, padding=kernel // 2)


def _update(memory: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
    return torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)


class PublishedConvLSTM(nn.Module):
    """ConvLSTM; state (h, c)."""

    states = 2

    def __init__(self, width: int, layer: int) -> None:
        super().__init__()
        del layer
        self._conv_x2h, self._conv_h2h = _conv(width, 4 * width, 3), _conv(width, 4 * width, 3)

    def forward(self, x: Tensor, previous: Tensor, state: State, m: Tensor) -> tuple[State, Tensor]:
        """Take one step."""
        h, c = state
        i, f, g, o = (self._conv_x2h(x) + self._conv_h2h(h)).chunk(4, 1)
        c = _update(c, i, f, g)
        return (torch.sigmoid(o) * torch.tanh(c), c), m


class PublishedMKLSTM(nn.Module):
    """MK-LSTM; state (h, c3, c5)."""

    states = 3

    def __init__(self, width: int, layer: int) -> None:
        super().__init__()
        del layer
        for kernel in (3, 5):
            setattr(self, f"_conv_x2h_{kernel}", _conv(width, 4 * width, kernel))
            setattr(self, f"_conv_h2h_{kernel}", _conv(width, 4 * width, kernel))
            setattr(self, f"_conv_c2o_{kernel}", _conv(width, width, kernel))
        self._conv_out = _conv(2 * width, width, 1)

    def forward(self, x: Tensor, previous: Tensor, state: State, m: Tensor) -> tuple[State, Tensor]:
        """Take one step."""
        h, c3, c5 = state
        i3, f3, g3, o3 = (self._conv_x2h_3(x) + self._conv_h2h_3(h)).chunk(4, 1)
        i5, f5, g5, o5 = (self._conv_x2h_5(x) + self._conv_h2h_5(h)).chunk(4, 1)
        c3, c5 = _update(c3, i3, f3, g3), _update(c5, i5, f5, g5)
        o = torch.sigmoid(o3 + o5 + self._conv_c2o_3(c3) + self._conv_c2o_5(c5))
        return (o * torch.tanh(self._conv_out(torch.cat([c3, c5], 1))), c3, c5), m


class PublishedPredRNN(nn.Module):
    """PredRNN; state (h, c)."""

    states = 2

    def __init__(self, width: int, layer: int) -> None:
        super().__init__()
        del layer
        self._conv_x2h, self._conv_h2h = _conv(width, 4 * width, 3), _conv(width, 4 * width, 3)
        self._conv_c2o, self._conv_m2o = _conv(width, width, 3), _conv(width, width, 3)
        self._conv_x2h_m, self._conv_m2h_m = _conv(width, 3 * width, 3), _conv(width, 3 * width, 3)
        self._conv_c_m = _conv(2 * width, width, 1)

    def forward(self, x: Tensor, previous: Tensor, state: State, m: Tensor) -> tuple[State, Tensor]:
        """Take one step."""
        h, c = state
        i, f, g, o = (self._conv_x2h(x) + self._conv_h2h(h)).chunk(4, 1)
        c = _update(c, i, f, g)
        m = _update(m, *(self._conv_x2h_m(x) + self._conv_m2h_m(m)).chunk(3, 1))
        o = torch.sigmoid(o + self._conv_c2o(c) + self._conv_m2o(m))
        return (o * torch.tanh(self._conv_c_m(torch.cat([c, m], 1))), c), m


class PublishedMIM(nn.Module):
    """MIM; state (h, c, n, s). The first layer computes n and s too, and uses neither."""

    states = 4

    def __init__(self, width: int, layer: int) -> None:
        super().__init__()
        self.first = layer == 0
        outputs = {"x2h_n": 3, "n2h_n": 3, "diff2o": 1, "n2o": 1, "x2h_s": 4, "c2h_s": 4, "s2o": 1,
                   "x2h": 4, "h2h": 4, "c2o": 1, "x2h_m": 3, "m2h_m": 3, "m2o": 1}  # fmt: skip
        for name, gates in outputs.items():
            setattr(self, f"_conv_{name}", _conv(width, gates * width, 3))
        self._conv_c_m = _conv(2 * width, width, 1)

    def forward(self, x: Tensor, previous: Tensor, state: State, m: Tensor) -> tuple[State, Tensor]:
        """Take one step; ``previous`` is what the layer below gave one step ago."""
        h, c, n, s = state
        d = x - previous
        n = _update(n, *(self._conv_x2h_n(d) + self._conv_n2h_n(n)).chunk(3, 1))
        change = torch.sigmoid(self._conv_diff2o(d) + self._conv_n2o(n)) * torch.tanh(n)
        i, f, g, o = (self._conv_x2h_s(change) + self._conv_c2h_s(c)).chunk(4, 1)
        s = _update(s, i, f, g)
        kept = torch.sigmoid(o + self._conv_s2o(s)) * torch.tanh(s)
        i, f, g, o = (self._conv_x2h(x) + self._conv_h2h(h)).chunk(4, 1)
        c = torch.sigmoid(i) * torch.tanh(g) + (torch.sigmoid(f) * c if self.first else kept)
        m = _update(m, *(self._conv_x2h_m(x) + self._conv_m2h_m(m)).chunk(3, 1))
        o = torch.sigmoid(o + self._conv_c2o(c) + self._conv_m2o(m))
        return (o * torch.tanh(self._conv_c_m(torch.cat([c, m], 1))), c, n, s), m


CELLS: dict[str, type[nn.Module]] = {
    "convlstm": PublishedConvLSTM,
    "tms-lstm": PublishedMKLSTM,
    "ms-lstm": PublishedMKLSTM,
    "predrnn": PublishedPredRNN,
    "mim": PublishedMIM,
}


class PublishedForecaster(nn.Module):
    """Embedding, six layers and head, rolled out over a whole clip.

    Args:
        name: a name of CELLS.
        width: channels of all layers.
        channels: channels of a frame.
    """

    def __init__(self, name: str, width: int = 32, channels: int = 1, layers: int = 6) -> None:
        super().__init__()
        cell = CELLS[name]
        self.pyramid, self.width = name == "ms-lstm", width
        self.states: int = cell.states  # type: ignore[assignment]
        self.embed = nn.ModuleDict({"conv_embed": _conv(channels, width, 1)})
        self.rnns = nn.ModuleDict({"lstm": nn.ModuleList(cell(width, layer) for layer in range(layers))})
        self.fc = nn.ModuleDict({"conv_fc": _conv(width, channels, 1)})

    def forward(self, clip: Tensor, context: int, horizon: int, truth: Tensor | None = None) -> Tensor:
        """Return the forecasts (B, context + horizon - 1, C, H, W) of frames 1 and on.

        ``truth`` (B, horizon - 1) says where a step after the context is fed with the truth.
        """
        states = [self._zeros(clip, scale) for scale in self._scales()]
        below = [state[0] for state in states]
        m, frames = states[0][0], []
        for step in range(context + horizon - 1):
            frame = clip[:, step] if step < context else frames[-1]
            if step >= context and truth is not None:
                chosen = truth[:, step - context, None, None, None]
                frame = torch.where(chosen, clip[:, step], frame)
            x = self.embed["conv_embed"](frame)
            encoded = []
            for layer, cell in enumerate(self.rnns["lstm"]):
                states[layer], m = cell(x, below[layer], states[layer], m)
                below[layer], x = x, states[layer][0]
                if self.pyramid:
                    encoded.append(x)
                    x = self._rescale(x, layer, encoded)
            frames.append(self.fc["conv_fc"](x))
        return torch.stack(frames, 1)

    def _scales(self) -> tuple[int, ...]:
        return (0, 1, 2, 2, 1, 0) if self.pyramid else (0,) * len(self.rnns["lstm"])

    def _zeros(self, clip: Tensor, scale: int) -> State:
        height, width = (size // 2**scale for size in clip.shape[-2:])
        return tuple(clip.new_zeros(len(clip), self.width, height, width) for _ in range(self.states))

    @staticmethod
    def _rescale(x: Tensor, layer: int, encoded: list[Tensor]) -> Tensor:
        if layer < 2:
            return F.max_pool2d(x, 2)
        if layer in (3, 4):
            return F.interpolate(x, scale_factor=2.0, mode="bilinear") + encoded[4 - layer]
        return x
