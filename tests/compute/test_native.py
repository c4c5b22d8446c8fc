"""Native convolutions and gates compute what torch does, within what float32 allows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples.models import CONTEXT, HORIZON, RECURRENT, small_clip, small_model
from samples.native import use
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

import framecast as fc
from framecast.cells import native as cells_native
from framecast.cells.convolution import OneRollout, SameConv2d, conv_parts, conv_same
from framecast.cells.gates import exposed, gated_update
from framecast.compute.native import build, library
from framecast.compute.native.build import NotNativeError

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=library.why_not())
ROOM = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Filtered products err by some roundings of the sum of the sizes of all terms, whatever is left when they cancel.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "native")


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def leaf(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a copy to be asked for its gradient."""
    return x.detach().to(dtype, copy=True).requires_grad_()


def near(found: Tensor | None, exact: Tensor | None, tolerance: float) -> None:
    assert found is not None
    assert exact is not None
    assert found.dtype == torch.float32
    assert float((found - exact).abs().max()) <= tolerance * float(exact.abs().max()) + 1e-12


@ROOM
@given(
    kernel=st.sampled_from([1, 3, 5]), batch=st.integers(1, 3), height=st.integers(1, 21), width=st.integers(1, 21),
    inputs=st.integers(1, 40), outputs=st.integers(1, 90), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_convolutions_of_any_shape(
    kernel: int, batch: int, height: int, width: int, inputs: int, outputs: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = last(torch.randn(batch, inputs, height, width)), torch.randn(outputs, inputs, kernel, kernel)
    added = [torch.randn(outputs), last(torch.randn(batch, outputs, height, width))] if bias else []
    gradient = torch.randn(batch, outputs, height, width)
    results = []
    for dtype in (torch.float32, torch.float64):
        given = [leaf(part, dtype) for part in (x, weight, *added)]
        y = conv_same(*given)
        if height * width > 1 and min(inputs, outputs) > 1:  # else there are other orders of so few numbers
            assert (y.grad_fn.name() == "_ConvolveBackward") == (dtype == torch.float32)
        y.backward(gradient.to(dtype))
        results.append([y.detach(), *(part.grad for part in given)])
        with torch.no_grad():
            assert torch.equal(conv_same(*given), y)
    # The largest number times all that may meet it: taps that meet the border's zeros err too.
    sizes = [
        x.abs().max() * weight.abs().sum((1, 2, 3)).max() + sum(part.abs().max() for part in added),
        gradient.abs().max() * weight.abs().sum((0, 2, 3)).max(),
        x.abs().max() * gradient.abs().sum((0, 2, 3)).max(),
        gradient.abs().sum((0, 2, 3)).max(),
        gradient.abs().max(),
    ]
    for found, exact, size in zip(*results, sizes[: len(results[0])], strict=True):
        assert float((found - exact).abs().max()) <= TOLERANCE * float(size)


@ROOM
@given(
    kernel=st.sampled_from([1, 3, 5]), widths=st.sampled_from([(16,), (32, 32), (16, 16, 16), (12, 12), (8, 16)]),
    parts=st.integers(1, 4), width=st.sampled_from([8, 16, 24]), side=st.integers(8, 14), used=st.integers(1, 4),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_several_maps_and_parts(
    kernel: int, widths: tuple[int, ...], parts: int, width: int, side: int, used: int, seed: int
) -> None:
    torch.manual_seed(seed)
    maps = [last(torch.randn(3, channels, side, side + 1)) for channels in widths]
    weight, bias = torch.randn(parts * width, sum(widths), kernel, kernel), torch.randn(parts * width)
    plus = last(torch.randn(3, parts * width, side, side + 1))
    # Of some parts nobody asks, and some gradients are parts of one array, as those of a cell's gates are.
    gradients = last(torch.randn(3, parts * width, side, side + 1)).chunk(parts, 1)[:used]
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [leaf(part, dtype) for part in (*maps, weight, bias, plus)]
        *x, w, b, p = leaves
        found = conv_parts(x, w, b, p, parts)
        torch.autograd.backward(found[:used], [gradient.to(dtype) for gradient in gradients])
        results.append([torch.cat(found, 1).detach(), *(one.grad for one in leaves)])
    assert len(found) == parts
    largest_x, largest_gradient = (max(float(one.abs().max()) for one in some) for some in (maps, gradients))
    sizes = [
        largest_x * weight.abs().sum((1, 2, 3)).max() + bias.abs().max() + plus.abs().max(),
        *[largest_gradient * weight.abs().sum((0, 2, 3)).max()] * len(maps),
        max(gradient.abs().sum((0, 2, 3)).max() for gradient in gradients) * largest_x,
        max(gradient.abs().sum((0, 2, 3)).max() for gradient in gradients),
        largest_gradient,
    ]
    for one, exact, size in zip(*results, sizes, strict=True):
        assert float((one - exact).abs().max()) <= TOLERANCE * float(size)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("recompute", ["none", 2])
def test_rollouts_and_their_gradients(name: str, recompute: Any) -> None:
    model, clip = small_model(name).train(), small_clip()
    truth = torch.tensor([[True, True, True, False, True]] * 2)
    results = []
    for dtype in (torch.float32, torch.float64):
        model.to(dtype).zero_grad()
        frames = model.rollout(clip.to(dtype), CONTEXT, HORIZON, truth, recompute).frames
        frames.square().sum().backward()
        results.append([frames.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for found, exact in zip(*results, strict=True):
        assert float((found - exact).abs().max()) <= 1e-3 * float(exact.abs().max()) + 1e-9
    near(results[0][0], results[1][0], 2e-5)


def test_a_gradient_is_whole_whatever_was_asked_before() -> None:
    conv, x = SameConv2d(8, 16, 5), last(torch.randn(2, 8, 12, 12)).requires_grad_()
    gradients = []
    for before in (False, True):
        conv.zero_grad()
        with OneRollout():
            y = conv(conv(x)[:, :8]).square().sum()
        if before:
            torch.autograd.grad(y, x, retain_graph=True)
            torch.autograd.grad(y, x, retain_graph=True)
        y.backward(retain_graph=True)
        once = conv.weight.grad.clone()
        y.backward()
        torch.testing.assert_close(conv.weight.grad, 2 * once)
        gradients.append(once)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("gradients", [False, True])
def test_transforms_of_functions_are_those_of_torch(gradients: bool) -> None:
    conv, x, tangent = SameConv2d(16, 16, 5), last(torch.randn(2, 16, 16, 16)), last(torch.randn(2, 16, 16, 16))
    weight = conv.weight.detach()
    with torch.set_grad_enabled(gradients):
        expected = conv_same(tangent, weight)
        with forward_ad.dual_level():
            found = forward_ad.unpack_dual(conv_same(forward_ad.make_dual(x, tangent), weight)).tangent
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        _, found = torch.func.jvp(lambda x: conv_same(x, weight), (x,), (tangent,))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        found = torch.func.vmap(lambda x: conv_same(x[None], weight)[0])(tangent)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_trace_holds_what_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells_native, "_found", [])
    for found in (library.find_library, library.why_not):
        found.cache_clear()
    conv, (x, other) = SameConv2d(16, 16, 5), (last(torch.randn(2, 16, 16, 16)) for _ in range(2))
    with torch.no_grad():
        traced = torch.jit.trace(conv, (x,), check_trace=False)
        assert cells_native.native() is not None
        torch.testing.assert_close(traced(other), conv(other), rtol=0, atol=1e-4)


def test_a_profile_names_what_is_native() -> None:
    model = fc.create_model("ms-lstm", hidden=16, layers=2)
    expected = {
        False: ("transform_kernel", "convolve", "convolve_gates"),
        True: ("transform_kernel", "convolve", "update", "expose", "gather", "update_gradients", "kernel_gradient"),
    }
    for gradients, names in expected.items():
        with torch.set_grad_enabled(gradients), torch.profiler.profile() as profile:
            loss = model(torch.rand(2, 4, 1, 32, 32), 2).sum()
            if gradients:
                loss.backward()
        found = {event.key for event in profile.key_averages()}
        assert {f"framecast::{name}" for name in names} <= found


def test_kernels_of_a_forecast_do_not_enter_a_training() -> None:
    conv, x = SameConv2d(8, 8, 3), last(torch.randn(1, 8, 9, 9))
    with OneRollout():
        with torch.no_grad():
            conv(x)
        conv(x).sum().backward()
    assert conv.weight.grad is not None
    before = conv(x).detach()
    with torch.no_grad():
        conv.weight.data.mul_(2)
    torch.testing.assert_close(conv(x), 2 * (before - conv.bias[:, None, None]) + conv.bias[:, None, None])


@ROOM
@given(
    batch=st.integers(1, 3), channels=st.integers(2, 40), side=st.integers(1, 9), size=st.floats(0.1, 100.0),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_gates(batch: int, channels: int, side: int, size: float, seed: int) -> None:
    torch.manual_seed(seed)
    gates = last(size * torch.randn(batch, 4 * channels, side, side + 1))
    c, gradient = last(torch.randn(batch, channels, side, side + 1)), torch.randn(batch, channels, side, side + 1)
    results = []
    for dtype in (torch.float32, torch.float64):
        gates64, c64 = leaf(gates, dtype), leaf(c, dtype)
        i, f, g, o = gates64.chunk(4, 1)
        updated = gated_update(c64, i, f, g)
        h = exposed(o, updated)
        assert (h.grad_fn.name() == "_ExposeBackward") == (dtype == torch.float32)
        h.backward(gradient.to(dtype))
        results.append([updated.detach(), h.detach(), gates64.grad, c64.grad])
    for found, exact in zip(*results, strict=True):
        assert float((found - exact).abs().max()) <= 2e-6 * max(1.0, float(exact.abs().max()))


@ROOM
@given(
    kernel=st.sampled_from([1, 3, 5]), batch=st.integers(1, 3), channels=st.sampled_from([8, 16, 32, 48, 80]),
    inputs=st.sampled_from([(16, 16), (24,), (12, 8)]), parts=st.integers(3, 5), height=st.integers(1, 14),
    width=st.integers(2, 14), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_gates_of_a_convolution(
    kernel: int, batch: int, channels: int, inputs: tuple[int, ...], parts: int, height: int, width: int, bias: bool,
    seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    maps = [last(torch.randn(batch, count, height, width)) for count in inputs]
    c, o = (last(torch.randn(batch, channels, height, width)) for _ in range(2))
    gates = SameConv2d(sum(inputs), parts * channels, kernel, bias)
    project = SameConv2d(sum(inputs), channels, kernel, bias)
    results = []
    with OneRollout():
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients):
                results.append([*gates.update(c, *maps, parts=parts), project.expose(o, *maps)])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other), "a forecast has the same bits with gradients and without"
    gates, project, x = gates.double(), project.double(), torch.cat(maps, 1).double()
    i, f, g, *others = gates(x).chunk(parts, 1)
    exact = [f.sigmoid() * c + i.sigmoid() * g.tanh(), *others, o.double().sigmoid() * project(x).tanh()]
    # No gate changes what it lets through by more than its own error.
    largest = max(float(conv.weight.detach().abs().sum((1, 2, 3)).max()) for conv in (gates, project))
    size = largest * float(x.abs().max()) * (1 + float(c.abs().max()))
    for found in results:
        assert len(found) == len(exact) == parts - 1
        for one, reference in zip(found, exact, strict=True):
            assert one.dtype == torch.float32
            assert one.shape == reference.shape
            assert float((one - reference).detach().abs().max()) <= TOLERANCE * size
    assert all(part.grad_fn is None for part in results[0])


def test_gates_at_the_ends_and_without_a_number() -> None:
    values = torch.tensor([-1e30, -200.0, -88.5, 0.0, 88.5, 200.0, 1e30, float("nan"), float("inf"), -float("inf")])
    o = last(values[None, :, None, None].repeat(1, 1, 2, 2))
    u = torch.full_like(o, 0.5)
    torch.testing.assert_close(exposed(o, u), torch.sigmoid(o) * torch.tanh(u), equal_nan=True, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(exposed(u, o), torch.sigmoid(u) * torch.tanh(o), equal_nan=True, rtol=1e-6, atol=1e-7)


def test_a_nan_stays_where_it_is() -> None:
    x, weight = last(torch.zeros(1, 8, 40, 40)), torch.ones(8, 8, 3, 3)
    x[0, 0, 20, 20] = float("nan")
    found = conv_same(x, weight).isnan().any(1)[0]
    rows, columns = torch.nonzero(found, as_tuple=True)
    assert len(rows), "it is not lost"
    assert (rows - 20).abs().max() <= 6, "and spreads over the tiles it is in, no further"
    assert (columns - 20).abs().max() <= 6


def test_threads_change_no_number() -> None:
    x, weight, gradient = last(torch.randn(2, 24, 33, 30)), torch.randn(40, 24, 5, 5), torch.randn(2, 40, 33, 30)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 8):  # with four and more, gradients by kernels share out channels too
        torch.set_num_threads(threads)
        given = leaf(x), leaf(weight)
        y = conv_same(*given)
        y.backward(gradient)
        results.append([y.detach(), *(part.grad for part in given)])
    torch.set_num_threads(before)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_what_it_does_not_take_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = last(torch.randn(1, 8, 9, 9)), torch.randn(8, 8, 3, 3, requires_grad=True)
    assert conv_same(x, weight).grad_fn.name() == "_ConvolveBackward"
    for other in (x.contiguous(), x.double()):
        assert conv_same(other, weight.to(other.dtype)).grad_fn.name() == "ConvolutionBackward0"
    with torch.autocast("cpu", torch.bfloat16):
        assert conv_same(x, weight).dtype == torch.bfloat16
    monkeypatch.undo()
    assert conv_same(x, weight).grad_fn.name() == "ConvolutionBackward0", "too little to do"


SIDE = (12, 12)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("maps", "plus"), [
    ([(2, 24, *SIDE)], None),
    ([(2, 16, *SIDE)], None),
    ([(2, 16, *SIDE), (2, 16, 6, 6)], None),
    ([(2, 16, *SIDE), (1, 16, *SIDE)], None),
    ([(2, 16, *SIDE), (2, 16, *SIDE)], (2, 48, 6, 6)),
    ([(2, 16, *SIDE), (2, 16, *SIDE)], (2, 64, *SIDE)),
    ([(32, *SIDE), (32, *SIDE)], None),
])  # fmt: skip
def test_what_does_not_fit_together_is_refused(
    maps: list[tuple[int, ...]], plus: tuple[int, ...] | None, kernel: int, gradients: bool
) -> None:
    conv, given = SameConv2d(32, 48, kernel), [torch.rand(*shape) for shape in maps]
    given = [last(x) if x.dim() == 4 else x for x in given]
    with torch.set_grad_enabled(gradients):
        with pytest.raises(RuntimeError, match=r"[Ss]ize|channels"):
            conv(*given, plus=None if plus is None else last(torch.rand(*plus)))
        if plus is None:
            with pytest.raises(RuntimeError, match=r"[Ss]ize|channels"):
                conv.update(last(torch.rand(2, 16, *SIDE)), *given)


@pytest.mark.parametrize("gradients", [False, True])
def test_gates_that_do_not_fit_are_refused_and_what_can_be_repeated_is(gradients: bool) -> None:
    x, (gates, project) = last(torch.rand(2, 16, *SIDE)), (SameConv2d(16, 64, 3), SameConv2d(16, 16, 1))
    with torch.set_grad_enabled(gradients):
        for c, parts in (((2, 32, *SIDE), 4), ((2, 16, *SIDE), 3), ((2, 16, 6, 6), 4)):
            with pytest.raises((RuntimeError, ValueError), match=r"size|unpack"):
                gates.update(last(torch.rand(*c)), x, parts=parts)
        for o in ((2, 32, *SIDE), (2, 16, 6, 6)):
            with pytest.raises(RuntimeError, match="size"):
                project.expose(last(torch.rand(*o)), x)
        row = torch.rand(1, 16, 1, 1)
        assert torch.equal(project(x, plus=row), project(x, plus=last(row.expand_as(x))))
    weight, bias = torch.rand(16, 16, 3, 3), torch.ones(1)
    with pytest.raises(RuntimeError, match="type"):
        conv_same(x, weight, bias.double().expand(16))
    with pytest.raises(RuntimeError, match=r"weight of size|bias"):
        conv_same(x, weight, bias)
    assert torch.allclose(conv_same(x, weight, bias.expand(16)), conv_same(x, weight, torch.ones(16)), atol=1e-4)


def test_the_operation_keeps_the_rules_of_torch() -> None:
    x, weight, bias = last(torch.randn(2, 8, 9, 11)), torch.randn(16, 8, 3, 3), torch.randn(16)
    arguments = tuple(map(leaf, (x, weight, bias)))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.framecast.conv_same.default, arguments, test_utils=checks)
    y, theirs = torch.ops.framecast.conv_same(*arguments), F.conv2d(*arguments, padding=1)
    near(y.detach(), theirs.detach(), 1e-5)
    found, exact = (torch.autograd.grad(value.square().sum(), arguments) for value in (y, theirs))
    for ours, reference in zip(found, exact, strict=True):
        near(ours, reference, 1e-4)


def test_the_operation_takes_any_order_and_says_what_it_does_not_take() -> None:
    x, weight, bias = torch.randn(2, 8, 9, 11), torch.randn(16, 8, 3, 3), torch.randn(16)
    operation = torch.ops.framecast.conv_same
    near(operation(x, weight, torch.ones(1).expand(16)), F.conv2d(x, weight, torch.ones(16), padding=1), 1e-5)
    for wrong in (
        (x[0], weight, bias), (x[:, :7], weight, bias), (x, weight[..., :1], bias), (x, weight[:, :, :1, :1], bias),
        (x, weight, bias[:15]), (x.double(), weight, bias), (x, weight, bias.double()),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="framecast::conv_same got"):
            operation(*wrong)


def test_the_compiler_sees_one_operation() -> None:
    model, clip = small_model("convlstm").eval(), small_clip()[:, :CONTEXT]
    names = set()

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        names.update(str(node.target) for node in graph.graph.nodes)
        return graph

    with torch.no_grad():
        expected = model(clip, HORIZON)
        torch.compiler.reset()
        model._step = torch.compile(model._step, backend=backend, fullgraph=True, dynamic=False)
        near(model(clip, HORIZON), expected, 1e-5)
    assert any("operation" in name or "conv_same" in name for name in names), names


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )


TELL = "from framecast.compute.native.library import why_not; print(why_not() or 'native')"


def test_built_once_and_again_where_the_cache_is_damaged(tmp_path: Path) -> None:
    first = run(TELL, FRAMECAST_CACHE=str(tmp_path))
    assert first.stdout == "native\n", first.stderr
    assert "compiled convolutions and gates for this processor" in first.stderr
    (file,) = (tmp_path / "native").iterdir()
    second = run(TELL, FRAMECAST_CACHE=str(tmp_path))
    assert (second.stdout, second.stderr) == ("native\n", "")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    third = run(TELL, FRAMECAST_CACHE=str(tmp_path))
    assert third.stdout == "native\n"
    assert "compiled" in third.stderr
    assert file.read_bytes() != bytes(content)


def test_two_may_build_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"FRAMECAST_CACHE": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-c", TELL], stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(2)]  # fmt: skip
    assert [process.communicate()[0] for process in both] == ["native\n"] * 2


@pytest.mark.parametrize(("environment", "reason"), [
    ({"FRAMECAST_NATIVE": "0"}, "FRAMECAST_NATIVE=0 switches it off"),
    ({"CXX": "no-such-compiler"}, "there is no C++ compiler"),
    ({"CXX": "false"}, "false fails: exit code 1"),
])  # fmt: skip
def test_without_it_everything_works(environment: dict[str, str], reason: str, tmp_path: Path) -> None:
    model = "; import torch, framecast as fc; print(fc.create_model('ms-lstm')(torch.rand(1, 2, 1, 32, 32), 2).shape)"
    done = run(TELL + model, **environment, FRAMECAST_CACHE=str(tmp_path))
    assert reason in done.stdout, done.stderr
    assert "torch.Size([1, 2, 1, 32, 32])" in done.stdout


def test_wrong_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(library.Library):
        def call(self, name: str, *arguments: Any) -> int:
            if name == "convolve":
                arguments[2].mul_(1.01)
            return super().call(name, *arguments)

    with pytest.raises(NotNativeError, match="its numbers are wrong by"):
        library._try(Wrong(build.load_code()))


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "native").write_text("in the way")
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path))
    build.load_code.__wrapped__()
    assert "is compiled again next time" in caplog.text


def test_the_first_to_look_may_compute_without_numbers() -> None:
    code = (
        "import torch, framecast as fc; from torch._subclasses.fake_tensor import FakeTensorMode\n"
        "with FakeTensorMode():\n"
        "    model = fc.create_model('convlstm', hidden=8, layers=2)\n"
        "    print(tuple(model(torch.rand(1, 2, 1, 32, 32), 2).shape))\n"
        "with torch.device('meta'):\n"
        "    print(fc.count_memory('convlstm', (6, 1, 16, 16), 3, hidden=4).saved(1) > 0)\n"
        + TELL
    )  # fmt: skip
    done = run(code)
    assert done.stdout == "(1, 2, 1, 32, 32)\nTrue\nnative\n", done.stderr
