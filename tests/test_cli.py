"""The command line: the whole way, its help, its configurations, and wrong words."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from samples.radar import knmi_folder, seconds

import framecast as fc
from framecast import cli
from framecast.api.models import option_meanings
from framecast.registry import model_entry


def test_the_whole_way_by_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(
        "model: ms-lstm\nmodel_options: {hidden: 4, layers: 2}\ndata: moving-mnist\n"
        "data_options: {size: 16, context: 3, horizon: 2, clips: 60}\nsteps: 3\nprogress: false\n"
    )
    assert cli.main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(out), "--batch", "2"]) == 0
    assert cli.main(["evaluate", str(out), "--limit", "4", "--progress", "false"]) == 0
    assert "persistence" in capsys.readouterr().out
    np.save(tmp_path / "past.npy", np.full((3, 16, 16), 0.5))
    assert cli.main(["predict", str(out), str(tmp_path / "past.npy"), "--horizon", "7", "--out", str(tmp_path)]) == 0
    assert "7 x 1 x 16 x 16" in capsys.readouterr().out
    assert cli.main(["report", str(out), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert cli.main(["train", "--config", str(tmp_path / "recipe.yaml"), "--out", str(out)]) == 1
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert cli.VERBS[verb].text in capsys.readouterr().out


def test_print_config_is_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--model", "convlstm", "--out", "x", "--epochs", "3", "--print_config"])
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        cli.main(["train", "--config", str(tmp_path / "c.yaml"), "--out", "y", "--print_config"])
    assert "epochs: 3" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[verb] for verb in sorted(cli.VERBS) if verb not in ("analyse", "data")]
    + [["analyse", part] for part in cli.ANALYSES] + [["data", part] for part in cli.DATA_VERBS])  # fmt: skip
def test_every_verb_and_part_takes_the_configuration_it_prints(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([*words, "--print_config"])
    printed = capsys.readouterr().out
    (tmp_path / "c.yaml").write_text(printed)
    with pytest.raises(SystemExit):
        cli.main([*words, "--config", str(tmp_path / "c.yaml"), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed)


def test_wrong_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert cli.main(["trian"]) == 1
    assert "Did you mean 'train'" in capsys.readouterr().err
    assert cli.main(["models", "ms-lstn"]) == 1
    assert "Did you mean 'ms-lstm'" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0
    assert cli.main(["models"]) == 0


TRAIN = ["train", "--model", "convlstm", "--data", "moving-mnist", "--out", "never"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([*TRAIN, "--epochs", "many"], 2, "--epochs is many and must be a whole number."),
        ([*TRAIN, "--modle", "x"], 2, "there is no option --modle. Did you mean --model?"),
        ([*TRAIN, "--hidden", "3"], 2, "there is no option --hidden. Did you mean --model_options.hidden?"),
        ([*TRAIN, "--clips=3"], 2, "there is no option --clips. Did you mean --data_options.clips?"),
        ([*TRAIN, "--model-options.hidden", "3"], 2, "Did you mean --model_options.hidden?"),
        ([*TRAIN, "--model_options.hiden", "3"], 1, "no option of model convlstm 'hiden'. Did you mean 'hidden'?"),
        ([*TRAIN, "--model_options.in_channels", "3"], 1, "--model_options.in_channels 1"),
        (["train", "--out", "never"], 1, "or --resume to continue"),
        (["train"], 2, "--out must be given."),
        (["predict", "run"], 2, "FRAMES must be given."),
        (["data", "inof"], 2, "Did you mean 'info'?"),
        (["data", "info", "x", "--data_optoins.context", "3"], 2, "Did you mean --data_options.context?"),
        (["models", "ms-lstm", "twice"], 2, "twice is one word too many"),
        ([*TRAIN, "--config", "wrong.yaml"], 2, "there is no option lyout. Did you mean layout?"),
    ],
)
def test_options_are_named_as_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text("lyout: auto\n")
    assert cli.main(words) == code
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not Path("never").exists()


def test_truth_values_and_lists_are_written_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    crop = ["--data_options.crop", "0", "480", "0", "360"]
    for tf32 in (["--tf32"], ["--tf32", "true"]):
        with pytest.raises(SystemExit):
            cli.main([*TRAIN, *tf32, "--resume", "false", *crop, "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        assert (config["tf32"], config["resume"]) == (True, False)
        assert config["data_options"] == {"crop": [0, 480, 0, 360]}


def test_the_configuration_of_a_run_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tmp_path / "a run", tmp_path / "again"
    common = ["--model_options.hidden", "2", "--model_options.layers", "1", "--data_options.size", "16"]
    lengths = ["--data_options.context", "2", "--data_options.horizon", "2", "--data_options.clips", "40"]
    steps = ["--steps", "2", "--progress", "false"]
    assert cli.main([*TRAIN[:-1], str(first), *common, *lengths, *steps]) == 0
    assert shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("next: "))[-1] == str(first)
    assert cli.main(["train", "--config", str(first / "config.yaml"), "--out", str(again)]) == 0
    assert (first / "config.yaml").read_text() == (again / "config.yaml").read_text()
    assert fc.load(first).state_dict().keys() == fc.load(again).state_dict().keys()


def test_imports_are_lazy() -> None:
    code = "import sys, framecast, framecast.cli; framecast.cli.main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_verbs_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(1, 300, (40, 6, 8), np.uint16)
    knmi_folder(tmp_path / "in", pixels, seconds("2010-08-26T01:00"))
    archive = str(tmp_path / "out.zarr")
    assert cli.main(["data", "convert", str(tmp_path / "in"), archive, "--workers", "1", "--progress", "false"]) == 0
    assert "40 frames, stored in steps of 0.01 mm/h" in capsys.readouterr().out
    options = ["--data_options.context", "2", "--data_options.horizon", "2"]
    assert cli.main(["data", "check", archive, *options]) == 0
    assert "0 errors" in capsys.readouterr().out
    assert cli.main(["data", "check", archive]) == 0
    assert "the test split has no clip" in capsys.readouterr().out
    assert cli.main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "no file or folder" in capsys.readouterr().out
    assert cli.main(["data", "info", archive, *options]) == 0
    assert "1 x 6x8 in units of mm/h" in capsys.readouterr().out


def test_names_and_their_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "list"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"moving-mnist", "taxibj", "kth", "own"} <= names
    for name, words in {"taxibj": ("Licence", "DeepST", "as_published"), "kth": ("csc.kth.se", "segments")}.items():
        assert cli.main(["data", "info", name]) == 0
        said = capsys.readouterr().out
        assert all(word in said for word in words)
    assert cli.main(["data", "info", "taxi"]) == 1
    assert "Did you mean 'taxibj'" in capsys.readouterr().err
    for verb in ("list", "info", "check", "convert"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["data", verb, "--help"])
        assert stop.value.code == 0


@pytest.mark.parametrize("verb", [*cli.VERBS, *cli.DATA_VERBS, *cli.ANALYSES])
def test_every_verb_is_a_function(verb: str) -> None:
    """``framecast data check`` is ``fc.check``, ``framecast analyse layers`` is ``fc.analyse_layers``."""
    if verb == "analyse":
        return  # its subcommands are the verbs
    name = {"list": "list_data", "info": "describe_data"}.get(verb, f"analyse_{verb}" if verb in cli.ANALYSES else verb)
    assert inspect.isfunction(getattr(fc, name))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("framecast tr", {"train"}),
        ("framecast ", set(cli.VERBS)),
        ("framecast train --mod", {"--model", "--model_options"}),
        ("framecast data ", set(cli.DATA_VERBS)),
        ("framecast data convert --app", {"--append"}),
    ],
)
def test_the_shell_completes_verbs_and_options(line: str, words: set[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE": "1",
             "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
             "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "said")}  # fmt: skip
    subprocess.run([sys.executable, "-m", "framecast"], env={**os.environ, **asked}, capture_output=True, check=False)
    found = {word.split(":")[0] for word in (tmp_path / "said").read_text().splitlines()}
    assert words <= found


@pytest.mark.parametrize("name", fc.list_models())
def test_every_option_of_a_model_is_explained(name: str) -> None:
    entry = model_entry(name)
    meanings = option_meanings(entry)
    assert [option for option in entry.options() if not meanings.get(option)] == []
    assert all(len(meanings[option]) <= 130 for option in entry.options()), "half a line"
