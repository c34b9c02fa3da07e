"""Optuna tunes the settings of informed drafts on a state log, without a model.

A trial replays the decode loop over the log with other settings. What they propose and the log does not know counts as
never evaluated, so a trial that strays far from what was recorded is judged too low; every trial says how much it
missed. A log that was recorded with several drafters, also wide ones, knows more. What the chosen settings are really
worth is counted on prompts that no trial has seen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from calibrate.traces.state_log import StateLog
from drafting.counts import check_paired
from drafting.state_replay import StateReplay, replay_states
from studies.statistics.intervals import Comparison, PromptBootstrap
from studies.tuning.shared_study import Question, StudyError, seeded_sampler
from verify.drafters.informed import InformedDrafter
from verify.drafters.settings import FILLS, InformedSettings
from verify.graph.formulas import Formula

TUNING_VERSION = 1
#: States beyond an alternative that are looked at; 0 is the default setting.
_FOLLOWS = (0, 2, 4, 8, 16)
DEFAULT, MIXTURE = "default", "mixture"


@dataclass(frozen=True)
class TuningConfig:
    """What the trials depend on, besides the log.

    Attributes:
        drafts: ``D``, drafts per forward.
        formulas: of a calibrated graph, best first, for the settings that give rows to one; empty: none of them.
        seed: of the sampler.
    """

    drafts: int
    formulas: tuple[Formula, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.drafts < 1:
            raise StudyError(f"drafts is {self.drafts}, expected at least 1; without drafts there is nothing to tune")
        if self.seed < 0:
            raise StudyError(f"seed must be at least 0, got {self.seed}")

    def drafter(self, settings: InformedSettings) -> InformedDrafter:
        """The drafter with some settings."""
        return InformedDrafter(self.drafts, settings, self.formulas if settings.uses_graph else ())


def tuning_question(log: StateLog, config: TuningConfig) -> Question:
    """The study over ``log``: forward passes per denoising step, to be minimised; 1 is plain decoding.

    Every trial notes ``missed``, the share of its proposals that the log does not know, and ``drafted_blocks``, what
    its drafts cost in rows. The default settings and a mixture of all fills are tried first.
    """

    def objective(trial: Trial) -> float:
        found = replay_states(log, config.drafter(suggest(trial, log, config)))
        trial.set_user_attr("missed", found.missed / max(1, found.proposed))
        trial.set_user_attr("drafted_blocks", found.drafted_blocks)
        return float(found.forwards / found.plain_forwards)

    return Question(
        facts={
            "version": TUNING_VERSION,
            "trace_hash": log.log_hash(),
            "config": {
                "drafts": config.drafts,
                "seed": config.seed,
                "formulas": [[list(pair) for pair in formula] for formula in config.formulas],
            },
        },
        objective=objective,
        directions=[StudyDirection.MINIMIZE],
        sampler=lambda position: seeded_sampler(config.seed, position, multivariate=True),
        warm_starts={
            name: _parameters(settings, log, config)
            for name, settings in ((DEFAULT, InformedSettings()), (MIXTURE, _mixture(config)))
        },
    )


def suggest(trial: Trial | FrozenTrial, log: StateLog, config: TuningConfig) -> InformedSettings:
    """The settings of a trial. What means nothing in the log's cache mode, or without a graph, is not asked for."""
    cache, graph = log.metadata["cache"], bool(config.formulas)
    fills = [fill for fill in FILLS if graph or "graph" not in fill]
    horizon = trial.suggest_int("horizon", 1, config.drafts)
    return InformedSettings(
        coefficient=trial.suggest_float("coefficient", 0.5, 1.3),
        horizon=None if horizon == config.drafts else horizon,
        fill=trial.suggest_categorical("fill", fills),
        hedges=trial.suggest_int("hedges", 0, min(3, config.drafts - 1)) if graph else 0,
        width=trial.suggest_int("width", 1, 3),
        follow=trial.suggest_categorical("follow", _FOLLOWS),
        bridges=trial.suggest_categorical("bridges", [True, False]) if cache == "block_causal" else True,
        beyond=trial.suggest_categorical("beyond", [False, True]) if cache == "block_causal" else False,
        copies=trial.suggest_categorical("copies", [False, True]) if cache == "dual" and log.offers_copies else False,
    )


def _mixture(config: TuningConfig) -> InformedSettings:
    fill = "alternatives+graph" if config.formulas else "alternatives"
    return InformedSettings(fill=fill, follow=8)


def _parameters(settings: InformedSettings, log: StateLog, config: TuningConfig) -> dict[str, Any]:
    """The parameters of a trial that makes ``settings``: the names that :func:`suggest` asks for here."""
    asked = optuna.trial.FixedTrial({**asdict(settings), "horizon": settings.horizon or config.drafts})
    suggest(asked, log, config)  # type: ignore[arg-type]  # a FixedTrial suggests as a Trial does
    return dict(asked.params)


@dataclass(frozen=True, eq=False)
class Tuned:
    """What tuning chose, and what it wins on prompts that no trial has seen.

    Attributes:
        settings: the chosen ones.
        trial: the number of the trial that they come from.
        value: forwards per step on the log that was tuned on; ``default_value``: of the default settings.
        default, chosen: counts on the test prompts.
        comparison: the chosen settings against the default ones there, paired over prompts.
    """

    settings: InformedSettings
    trial: int
    value: float
    default_value: float
    default: StateReplay
    chosen: StateReplay
    comparison: Comparison

    @property
    def exact(self) -> bool:
        """Whether the test log knew every state that either of the two proposed."""
        return self.default.exact and self.chosen.exact


def judge(study: optuna.Study, log: StateLog, test: StateLog, config: TuningConfig) -> Tuned:
    """The best trial of a study over ``log``, judged on the prompts of ``test``.

    Raises:
        StudyError: no trial was finished.
        drafting.counts.ReplayError: fewer than two prompts, or a test log that does not hold its own decodes.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not finished:
        raise StudyError(f"the study {study.study_name!r} has no finished trial")
    best = study.best_trial
    fixed = optuna.trial.FixedTrial(best.params)
    settings = suggest(fixed, log, config)  # type: ignore[arg-type]
    usual = replay_states(log, config.drafter(InformedSettings()))  # its trial may be another worker's, not done yet
    default, chosen = (replay_states(test, config.drafter(one)) for one in (InformedSettings(), settings))
    check_paired(chosen, default)
    comparison = PromptBootstrap(default.prompts, seed=config.seed).compare(chosen, default)
    return Tuned(
        settings, best.number, float(best.value or 0.0), usual.forwards / usual.plain_forwards, default, chosen,
        comparison,
    )  # fmt: skip


def changes(settings: InformedSettings) -> dict[str, Any]:
    """The settings that differ from the default ones."""
    usual = asdict(InformedSettings())
    return {name: value for name, value in asdict(settings).items() if value != usual[name]}
