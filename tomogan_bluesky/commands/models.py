"""`tomogan-bluesky models`: the registry of models, one in use for each instrument."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.registry import Slot

_EXAMPLES = """\
examples:
  tomogan-bluesky models promote my_model/model.ts --registry /data/models \\
      --beamline 2-BM --energy-kev 25 --detector oryx --pixel-size-um 1.1
      use this model for scans of that instrument from now on
  tomogan-bluesky models list --registry /data/models
  tomogan-bluesky models show 3f2a --registry /data/models
      the card of the model that is used, and which were before
  tomogan-bluesky models verify --registry /data/models
      are the files what they were, and can they be loaded? exit code 1 if not
  tomogan-bluesky models rollback 3f2a --registry /data/models
      back to the model that was used before

A callback with model="registry:/data/models" looks up, at the end of each scan's acquisition, which
model is used for the scan's instrument, as its start document tells it, and changes over to it
between two runs. Nothing is loaded that is not in the registry's index with its sha256.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "models",
        help="the registry of models: list, show, verify, promote, rollback",
        description="Keep models in a folder, one in use for each instrument.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name, help=text, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        made.add_argument("--registry", required=True, type=Path, metavar="FOLDER")
        made.add_argument("--json", action="store_true", help="one object a line")
        return made

    verb("list", "which models are in use, and for what")
    for name, text in (
        ("show", "the card of an instrument's model, and those before"),
        ("rollback", "go back to the model before"),
    ):
        verb(name, text).add_argument("fingerprint", help="as list shows it, or its beginning")
    verb("verify", "see that each model in use is what it was, and can be loaded")
    promote = verb("promote", "use a model for an instrument from now on")
    promote.add_argument("model", help="name of a shipped model, or a model file; it is copied")
    promote.add_argument("--beamline", help="what is not given fits any")
    promote.add_argument("--energy-kev", type=float)
    promote.add_argument("--detector")
    promote.add_argument("--pixel-size-um", type=float)
    promote.add_argument("--exposure-s", type=float)
    return parser


def run(args: argparse.Namespace) -> int:
    from ..models.registry import Registry

    registry = Registry(args.registry)
    if args.verb == "list":
        for fingerprint, slot in registry.slots().items():
            _tell(args, fingerprint, slot)
    elif args.verb == "show":
        slot = registry.find(args.fingerprint)
        card = registry.card(slot.history[-1])
        if args.json:
            print(json.dumps({**_as_dict(slot), "card": card.model_dump(mode="json")}))
        else:
            print(card.model_dump_json(indent=1, exclude={"training"}))
            for promotion in reversed(slot.history):
                print(f"{promotion.promoted:%Y-%m-%d %H:%M}  {promotion.name}  {promotion.sha256}")
    elif args.verb == "verify":
        return _verify(args, registry.verify())
    elif args.verb == "rollback":
        slot = registry.rollback(args.fingerprint)
        _tell(args, slot.instrument.fingerprint, slot)
    else:
        slot = registry.promote(args.model, _instrument(args))
        _tell(args, slot.instrument.fingerprint, slot)
    return 0


def _instrument(args: argparse.Namespace) -> Any:
    """The instrument of the options; its reconstruction is that of the model."""
    from ..models.artifact import load_model
    from ..models.registry import Instrument

    trained = load_model(args.model)[1].reconstruction
    return Instrument(
        beamline=args.beamline,
        energy_kev=args.energy_kev,
        detector=args.detector,
        pixel_size_um=args.pixel_size_um,
        exposure_s=args.exposure_s,
        method=trained.method,
        filter=trained.filter,
    )


def _verify(args: argparse.Namespace, found: dict[str, str | None]) -> int:
    for fingerprint, problem in found.items():
        if args.json:
            print(json.dumps({"fingerprint": fingerprint, "problem": problem}))
        else:
            print(f"{'ok     ' if problem is None else 'PROBLEM'}  {fingerprint}  {problem or ''}")
    return 1 if any(found.values()) else 0


def _tell(args: argparse.Namespace, fingerprint: str, slot: "Slot") -> None:
    current = slot.history[-1]
    if args.json:
        print(json.dumps(_as_dict(slot)))
    else:
        print(f"{fingerprint}  {current.name}  {current.sha256[:12]}  {slot.instrument}")


def _as_dict(slot: "Slot") -> dict[str, Any]:
    return {"fingerprint": slot.instrument.fingerprint, **slot.model_dump(mode="json")}
