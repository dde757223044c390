"""What a validation decides: which network is kept, and whether the training goes on.

Enters: the state of a training and the scores of its averaged network. Leaves: the state, with that
network kept or not, and the scores in its history.
"""

import logging

from .collapse import CollapseWatch
from .state import TrainingState

logger = logging.getLogger(__name__)


def judge(state: TrainingState, entry: dict[str, float], watch: CollapseWatch) -> None:
    """Judge the averaged network by an entry of the history, which is appended.

    Raises
    ------
    CollapseError
        Its scores fell by more than a gan stage may cost on any account.
    """
    if state.config.stage == "gan":
        entry["cost_db"] = _cost(state.progress.baseline, entry)
        watch.after_validation(state.progress.step, entry["cost_db"])
        if entry["cost_db"] <= state.config.largest_cost_db:
            state.keep()
        else:
            logger.warning(
                "training: step %d costs %.2f dB, more than %g: this network is not kept",
                state.progress.step,
                entry["cost_db"],
                state.config.largest_cost_db,
            )
    elif state.config.patience is None:
        state.keep()
    else:
        _keep_the_best(state, entry, state.config.patience)
    state.progress.history.append(entry)


def _cost(baseline: dict[str, float], scores: dict[str, float]) -> float:
    """What the worst of the scores is below the baseline, in dB."""
    return max(baseline[key] - scores[key] for key in _denoised(baseline))


def _keep_the_best(state: TrainingState, entry: dict[str, float], patience: int) -> None:
    """Keep the average if it is the best; stop after `patience` validations without a better."""
    progress = state.progress
    best = max((_mean(e) for e in progress.history), default=float("-inf"))
    if _mean(entry) > best:
        state.keep()
    since = (progress.step - progress.kept_step) / state.config.checkpoint_every
    if since >= patience:
        progress.stopped = f"no better validation since step {progress.kept_step}"
        logger.info("training: stopped at step %d: %s", progress.step, progress.stopped)


def _denoised(scores: dict[str, float]) -> list[str]:
    return [key for key in scores if "_denoised_" in key]


def _mean(scores: dict[str, float]) -> float:
    keys = _denoised(scores)
    return sum(scores[key] for key in keys) / len(keys)
