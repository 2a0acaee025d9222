"""Searches with Optuna that are refused before a trial runs, and how a failed trial is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.utils import JobStatus
from tiny_cli import call

from unipeft_run import cli
from unipeft_run.sweeps.trials import FailedReturn, TrialFailed

pytest.importorskip("optuna")
SST2 = ("task=sst2", "method=mam", "scale=mini")
SPACE = ("optim.lr=tag(log,interval(1e-4,1e-2))", "ffn.bottleneck=choice(16,32)")
OPTUNA = ("-m", "hydra/sweeper=optuna", *SST2, *SPACE)
Search = Callable[..., int]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Search:
    """Call unipeft train in an empty folder; a run fails the test."""
    monkeypatch.chdir(tmp_path)
    stub = ModuleType("unipeft_run.run")
    stub.run = lambda planned: pytest.fail("a trial ran")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unipeft_run.run", stub)
    return lambda *words: call(cli.train, monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("-m", "hydra/sweeper=optuna", *SST2), "nothing to search: give ranges"),
        (("-m", "hydra/sweeper=ax", *SST2), "hydra/sweeper=ax is not supported; choose from basic"),
        (("hparams_search=lr", *SST2), "hparams_search=lr is a search of many runs; add -m"),
        (("hydra/sweeper=optuna", *SST2), "sweepers search among many runs; add -m"),
        (("-m", "hparams_search=lrr", *SST2), "hparams_search=lrr is unknown (did you mean lr?)"),
        ((*OPTUNA, "hydra.sweeper.direction=minimize"), "has maximize; leave it out"),
        ((*OPTUNA, "hydra.sweeper.storage=sqlite:///x.db"), "the study is stored in"),
        ((*OPTUNA, "hydra/sweeper/sampler=grid"), "takes no seed"),
        ((*OPTUNA, "hydra.sweeper.n_trial=3"), "did you mean hydra.sweeper.n_trials?"),
        ((*OPTUNA, "optim.lrr=interval(1e-3,1e-2)"), "there is no key optim.lrr; did you mean"),
        ((*OPTUNA, "limit.validation=choice(5,6)"), "limit.validation cannot be searched"),
        *(
            ((*OPTUNA, f"{key}=choice(a,b)"), f"{key} cannot be searched")
            for key in ("debug", "task.mini", "task.metric", "evaluation.references")
        ),
        ((*OPTUNA[:-3], "scale=choice(mini,paper)"), "scale cannot be searched"),
        (
            (*OPTUNA[:2], "task=sst2,mnli", *SST2[1:]),
            "task cannot be searched: it changes the data",
        ),
        ((*OPTUNA[:3], "method=choice(mam,prefix)"), "method cannot be searched: methods differ"),
        ((*OPTUNA, "hydra.sweeper.n_trials=0"), "hydra.sweeper.n_trials=0: must be at least 1"),
        ((*OPTUNA, "output=afile"), "the search folder cannot be used: afile"),
        (("-m", "hparams_search=lr,mini_lr", *SST2), "all runs share one hparams_search"),
        ((*OPTUNA, "experiment=table6"), "experiment= lists its own runs"),
        ((*OPTUNA, "hydra.sweep.subdir=x"), "set output=DIR"),
        (("-m", *SST2, SPACE[0]), "hydra/sweeper=optuna"),
        (("-m", *SST2, "seed=1,2", "hydra.sweeper.n_trials=3"), "needs a sweeper"),
    ],
)
def test_what_cannot_work_is_refused(
    words: tuple[str, ...],
    part: str,
    search: Search,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("afile").touch()
    assert search(*words) == 2
    err = capsys.readouterr().err
    assert part in err and len(err.splitlines()) <= 3


def test_a_search_file_may_set_the_sweeper_only(
    tmp_path: Path, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "hparams_search").mkdir(parents=True)
    (tmp_path / "mine" / "hparams_search" / "short.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: optuna\n"
        "hydra: {sweeper: {params: {optim.lr: 'interval(1e-4, 1e-2)'}}}\nseed: 3\n"
    )
    words = ("-m", "hparams_search=short", *SST2, "--config-dir", str(tmp_path / "mine"))
    assert search(*words) == 2
    assert "the file sets seed, but may set hydra.sweeper only" in capsys.readouterr().err
    file = tmp_path / "mine" / "hparams_search" / "short.yaml"
    file.write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}\n")
    assert search(*words) == 2
    assert "the file selects no sweeper; add `- override" in capsys.readouterr().err


def test_a_failed_trial_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    returned = FailedReturn(status=JobStatus.FAILED, _return_value=TrialFailed("diverged"))
    with pytest.raises(TrialFailed, match="diverged"):
        _ = returned.return_value
    assert capsys.readouterr().err == ""
