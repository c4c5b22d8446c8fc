"""Earthformer's parts, sizes and options; what it shares with other models is in test_laws.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from framecast.errors import UnknownNameError
from framecast.models.earthformer.attention import Cuboid, CuboidSelfAttention, Settings
from framecast.models.earthformer.model import Earthformer

SMALL = {"context": 3, "horizon": 3, "size": (16, 16), "base_units": 16, "heads": 2}
SMALL |= {"encoder_depths": (1, 1), "decoder_depths": (1, 1)}
GLOBAL = {"vectors": 3, "decoder_vectors": "update", "cross_vectors": True, "vector_ffn": True}
SETTINGS: dict[str, Any] = {
    "heads": 2,
    "padding": "zeros",
    "resize_positions": False,
    "inter_ffn": True,
    "activation": "gelu",
    "gated": False,
    "attention_dropout": 0.0,
    "projection_dropout": 0.0,
    "ffn_dropout": 0.0,
    "vectors": 2,
    "decoder_vectors": "none",
    "cross_vectors": False,
    "separate_vectors": False,
    "vector_self_attention": False,
    "vector_ffn": False,
}


def small(**options: Any) -> Earthformer:
    return Earthformer(**{**SMALL, **options})


def frames(count: int = 3, height: int = 16, width: int = 16, channels: int = 1, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, count, channels, height, width)


def test_cost_of_the_released_configuration() -> None:
    model = Earthformer().eval()
    # The released model has 6,702,109; 8 cross-attentions hold 39 offsets for 4 heads, of which 19 occur.
    assert sum(p.numel() for p in model.parameters()) == 6_702_109 - 8 * (39 - 19) * 4
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(frames(10, 64, 64, batch=1), 10)
        assert counter.get_total_flops() / 2 == pytest.approx(33.328e9, rel=1e-4)
        # The counter's hooks must find their way through global vectors, too.
        small(**GLOBAL)(frames(), 3)


def test_cut_of_a_row() -> None:
    row = torch.arange(6.0).view(1, 1, 1, 6, 1)
    assert Cuboid((1, 1, 2)).cut(row).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert Cuboid((1, 1, 2), dilated=True).cut(row)[0, ..., 0].tolist() == [[0, 3], [1, 4], [2, 5]]
    shifted = Cuboid((1, 1, 2), shift=(0, 0, 1))
    assert shifted.cut(row)[0, ..., 0].tolist() == [[1, 2], [3, 4], [5, 0]]
    # Only the last box joins the two ends, which do not see one another.
    assert shifted.labels((1, 1, 6)).tolist() == [[0, 0], [0, 0], [0, 4]]
    ignored = Cuboid((1, 1, 4), padding="ignore")
    assert ignored.labels((1, 1, 6)).tolist() == [[0, 0, 0, 0], [0, 0, -1, -1]]
    assert ignored.padding_mask((1, 1, 6)).tolist() == [[True] * 4, [True, True, False, False]]
    assert Cuboid((1, 1, 4)).labels((1, 1, 6)) is None


@pytest.mark.parametrize("padding", ["zeros", "ignore"])
@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 2, 1)])
def test_join_undoes_cut(padding: str, dilated: bool, shift: tuple[int, int, int]) -> None:
    x = torch.rand(2, 5, 7, 6, 3)
    cuboid = Cuboid((2, 4, 3), dilated, shift, padding)
    assert torch.equal(cuboid.join(cuboid.cut(x), (5, 7, 6)), x)


@pytest.mark.parametrize("padding", ["zeros", "ignore"])
def test_vectors_read_all_tokens(padding: str) -> None:
    cuboid, shape = Cuboid((2, 2, 3), padding=padding, shift=(1, 0, 1)), (3, 3, 4)
    layer = CuboidSelfAttention(4, shape, cuboid, Settings(**{**SETTINGS, "padding": padding}), True, True)
    x, vectors = torch.rand(1, *shape, 4), torch.rand(1, 2, 4)
    tokens = layer.norm(x).flatten(1, 3)
    if padding == "zeros":
        # Filled-in tokens are keys, too: 4 x 4 x 6 tokens in all.
        tokens = torch.cat([tokens, torch.zeros(1, 4 * 4 * 6 - 36, 4)], 1)
    _, key, value = layer.from_tokens(tokens).view(1, -1, 3, 2, 2).unbind(2)
    query = layer.from_vectors(layer.vector_norm(vectors)).view(1, 2, 3, 2, 2)[:, :, 2]
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / 2**0.5
    read = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value).flatten(2)
    torch.testing.assert_close(layer(x, vectors)[1], vectors + layer.to_vectors(read))


@pytest.mark.parametrize(
    "options",
    [
        {"decoder_depths": (2, 2)},
        {"horizon": 1},
        {"context": 1},
        {"size": (9, 14), "padding": "ignore"},
        {"size": (10, 13), "padding": "nearest", "encoder_patterns": "video_swin_2x2"},
        {"encoder_patterns": "spatial_lg_2", "cross_patterns": "cross_2x2_heter"},
        {"size": (6, 6), "context": 1, "cross_patterns": "cross_4x4_heter"},
        {"queries": "last", "inter_ffn": False, "gated": True},
        {"entry_stages": [(8, 3, 2), (16, 2, 1)], "size": (24, 24), "positions": "t+h+w"},
        {"vectors": 3},
        {"vectors": 3, "decoder_vectors": "read", "vector_ffn": True},
        {"vectors": 3, "separate_vectors": True, "vector_self_attention": True},
        {**GLOBAL, "decoder_depths": (2, 2), "separate_vectors": True, "decoder_positions": True},
        {**GLOBAL, "inter_ffn": False, "first_self_attention": True},
    ],
    ids=str,
)
def test_every_element_of_every_parameter_learns(options: dict[str, Any]) -> None:
    dead: dict[str, torch.Tensor] = {}
    for seed, spread in enumerate((None, None, 0.05, 0.1)):
        torch.manual_seed(seed)
        model = small(**options).double().train()
        for parameter in model.parameters() if spread else ():
            torch.nn.init.normal_(parameter, std=spread)
        past = frames(model.context, *model.size, batch=3).double()
        forecast = model(past, model.block)
        error = forecast - torch.rand_like(forecast)
        (error.square() + error.abs()).sum((2, 3, 4)).mean().backward()
        largest = max(p.grad.abs().max() for p in model.parameters())
        small_ones = {key: p.grad.abs() <= 1e-9 * largest for key, p in model.named_parameters()}
        dead = {key: mask & dead.get(key, mask) for key, mask in small_ones.items()}
        if not any(mask.any() for mask in dead.values()):
            return
    pytest.fail(f"elements without a gradient: { {key: int(m.sum()) for key, m in dead.items() if m.any()} }")


def test_batch_rows_are_independent() -> None:
    model, past = small(**GLOBAL).eval().double(), frames(batch=3).double()
    alone = torch.cat([model(row[None], 3) for row in past])
    torch.testing.assert_close(model(past, 3), alone, rtol=0, atol=1e-12)


def test_lengths() -> None:
    # In double precision: torch sums a view of a longer past in another order than frames of their own.
    model, past = small(context=2).eval().double(), frames(5).double()
    with torch.no_grad():
        first = model(past, 3)
        torch.testing.assert_close(model(past[:, -2:], 3), first, rtol=0, atol=1e-12)
        assert torch.equal(model(past, 2), first[:, :2])
        second = model(first, 3)
        torch.testing.assert_close(model(past, 7), torch.cat([first, second, model(second, 1)], 1), rtol=0, atol=1e-12)
        rollout = model.rollout(past, 4, 5)
    assert (rollout.first, rollout.penalty) == (4, None)
    torch.testing.assert_close(rollout.frames, model(past[:, :4], 5), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="has 1 frames and this model was built for context=2"):
        model(past[:, :1], 3)
    with pytest.raises(ValueError, match="truth=None"):
        model.rollout(past, 3, 2, torch.ones(2, 4, dtype=torch.bool))


def test_a_block_shorter_than_the_context_is_rolled() -> None:
    model, past = small(context=4, horizon=1).eval(), frames(4)
    with torch.no_grad():
        first = model(past, 1)
        second = model(torch.cat([past[:, 1:], first], 1), 1)
        torch.testing.assert_close(model(past, 2), torch.cat([first, second], 1))


def test_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"20x16 .* built for 16x16: create it with size=\(20, 16\)"):
        small()(frames(height=20), 3)
    torch.manual_seed(3)
    fixed = small(**GLOBAL).eval()
    torch.manual_seed(3)
    model = small(**GLOBAL, resize_positions=True).eval()
    with torch.no_grad():
        assert torch.equal(model(frames(batch=1) * 0, 3), fixed(frames(batch=1) * 0, 3))
        for height, width in ((20, 16), (24, 31), (9, 5), (64, 64)):
            assert model(frames(height=height, width=width), 3).shape == (2, 3, 1, height, width)
    with pytest.raises(ValueError, match=r"4x16 .* 4 times coarser, needs at least 2x2 tokens: use 5x16"):
        model(frames(height=4), 3)


@pytest.mark.parametrize(
    "options", [{"encoder_patterns": "video_swin_2x4"}, {"positions": "t+h+w", "padding": "ignore"}], ids=str
)
def test_sizes_may_change_with_any_pattern(options: dict[str, Any]) -> None:
    model = small(**options, resize_positions=True).eval()
    for height, width in ((16, 16), (10, 22), (5, 7), (37, 16)):
        forecast = model(frames(height=height, width=width), 3)
        assert forecast.shape[-2:] == (height, width)
        assert forecast.isfinite().all()


def test_dropout_is_active_in_training_only() -> None:
    past = frames()
    for option in ("attention_dropout", "projection_dropout", "ffn_dropout"):
        none = {"attention_dropout": 0.0, "projection_dropout": 0.0, "ffn_dropout": 0.0}
        model = small(**{**none, option: 0.5})
        assert not torch.equal(model.train()(past, 3), model(past, 3))
        assert torch.equal(model.eval()(past, 3), model(past, 3))
    model = small(**none)
    torch.testing.assert_close(model.train()(past, 3), model.eval()(past, 3))


@pytest.mark.parametrize(
    "options",
    [
        {**GLOBAL, "separate_vectors": True},
        {"encoder_patterns": "video_swin_2x4", "size": (18, 18), "padding": "ignore"},
        {"cross_patterns": "cross_3x3_heter", "padding": "nearest", "queries": "nearest"},
    ],
    ids=str,
)
def test_export_and_short_floats(options: dict[str, Any]) -> None:
    class Fixed(torch.nn.Module):
        def __init__(self, model: Earthformer) -> None:
            super().__init__()
            self.model = model

        def forward(self, past: torch.Tensor) -> torch.Tensor:
            return self.model(past, 3)

    model = Fixed(small(**options).eval())
    past = frames(3, *model.model.size)
    with torch.no_grad():
        exact = model(past)
        exported = torch.export.export(model, (past,)).module()
        torch.testing.assert_close(exported(past), exact, rtol=0, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            short = model(past)
    torch.testing.assert_close(short.float(), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads is 3 and must divide base_units=16: use 2"),
        (
            {"base_units": 24, "heads": 2},
            r"24 channels \(base_units=24\) and its GroupNorm needs a multiple of 16: use 32",
        ),
        ({"encoder_patterns": "axal"}, "no pattern 'axal'. Did you mean 'axial'"),
        ({"decoder_patterns": "video_swim_2x4"}, "Did you mean 'video_swin_PxM'"),
        ({"cross_patterns": "cross_2x3"}, "takes square boxes: use cross_2x2"),
        ({"cross_patterns": "cross_0x0"}, "no pattern 'cross_0x0'"),
        (
            {"decoder_depths": (1,)},
            "decoder_depths has length 1 and encoder_depths 2: .* give decoder_depths 2 entries",
        ),
        ({"encoder_patterns": ("axial",) * 3}, "encoder_patterns has length 3"),
        ({"encoder_depths": (), "decoder_depths": ()}, "at least one level"),
        ({"encoder_depths": (0, 1)}, "must be a whole number of at least 1"),
        ({"size": (4, 16)}, "frames are 4x16 .* needs at least 2x2 tokens: use 5x16 or more, or fewer levels"),
        ({"size": (16,)}, r"must be \(height, width\)"),
        ({"padding": "zero"}, "no padding 'zero'. Did you mean 'zeros'"),
        ({"positions": "hw"}, "no kind of positions 'hw'"),
        ({"queries": "zeros"}, "no kind of queries 'zeros'"),
        ({"activation": "gleu"}, "Did you mean 'gelu'"),
        ({"decoder_vectors": "updates", "vectors": 2}, "Did you mean 'update'"),
        ({"vector_ffn": True}, "vector_ffn is set and there are no global vectors: set vectors=8"),
        ({"ffn_dropout": 1.0}, "ffn_dropout is 1.0 and must be from 0 to below 1: use 0.9"),
        ({"entry_stages": [(8, 3)]}, r"\(8, 3\) in entry_stages must be \(channels, scale, convolutions\)"),
        ({"entry_stages": [(9, 2, 1), (16, 2, 1)]}, "9 channels .* multiple of 4: use 8"),
        ({"entry_stages": [(8, 2, 1)]}, "end with 8 channels .* base_units=16: use base_units=8"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        small(**options)
    assert ("no pattern" in message) <= isinstance(caught.value, UnknownNameError)


def test_other_channels_up_to_the_block() -> None:
    model = small(in_channels=2, out_channels=1)
    assert model(frames(channels=2), 3).shape == (2, 3, 1, 16, 16)
    with pytest.raises(ValueError, match=r"takes 2 channels and gives 1, .* ask for horizon=3"):
        model(frames(channels=2), 4)
