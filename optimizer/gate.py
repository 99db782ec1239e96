"""Decide whether a build may ship. Pure: figures in, a verdict or an error out."""

from ommatid.errors import BadInputError
from optimizer.errors import GateError
from optimizer.request import GateRule
from optimizer.search import Judgement, Try

PERCENT = 100


def judge_against(rule: GateRule, judgement: Judgement, float_accuracy: float | None) -> bool:
    """Tell whether a candidate loses no more than the rule allows."""
    if rule.max_drop is not None and judgement.accuracy is not None and float_accuracy is not None:
        # Shares of whole images: a difference in the last bits of a float is none.
        return float_accuracy - judgement.accuracy <= rule.max_drop + 1e-9
    return judgement.agreement.value >= rule.min_agreement


def check_rule(rule: GateRule, *, labelled: bool, classification: bool) -> None:
    """Refuse a rule that these images cannot decide.

    Raises:
        BadInputError: --max-drop without class folders.
    """
    if rule.max_drop is not None and not (labelled and classification):
        raise BadInputError(
            "--max-drop needs labels: a classification model, and --validate a folder with one sub-folder a class",
            hint="without labels the agreement with the float model decides: --min-agreement",
        )


def check_evidence(seen: int, images: int) -> None:
    """Refuse images that prove nothing.

    Raises:
        BadInputError: The float model itself found nothing in any of them.
    """
    if seen == 0:
        raise BadInputError(
            f"the float model finds nothing in the {images} validation images, so nothing can be compared",
            hint="check --mean, --scale, --color and --decode, choose other images, or lower --score-threshold",
        )


def enforce(rule: GateRule, choice: Try, tried: int, metric: str, float_accuracy: float | None) -> None:
    """Let a build through, or refuse it.

    Raises:
        GateError: It loses too much; the figures are in the message.
    """
    if choice.judgement.passed or not rule.enforced:
        return
    agreed, accuracy = choice.judgement.agreement, choice.judgement.accuracy
    of = f"{agreed.images} images, best of {tried} recipes" if tried > 1 else f"{agreed.images} images"
    if rule.max_drop is not None and accuracy is not None and float_accuracy is not None:
        drop = (float_accuracy - accuracy) * PERCENT
        what = (
            f"accuracy fell by {drop:.2f} points to {accuracy * PERCENT:.2f} % ({of}); "
            f"at most {rule.max_drop * PERCENT:g} points are allowed"
        )
    else:
        name = "F1" if metric == "agreement_f1" else "on the likeliest class"
        asked = f"at least {rule.min_agreement:g} is asked"
        what = f"agreement {name} with the float model is {agreed.value:.3f} ({of}); {asked}"
    raise GateError(
        f"the gate refuses this build: {what}",
        hint="give more and more varied calibration images, let the search run (no --no-search), or more layers stay "
        "float (--max-float-layers); --no-gate packs it all the same, and says so in the bundle",
    )
