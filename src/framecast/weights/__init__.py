"""Trained models that ship with framecast, each a folder that `framecast.load` takes by its name.

    model = fc.load("breakfast_futures")

They are small, and the licence of the data that they were trained on lets them be passed on; README.md in the
folder says whose data that is.
"""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).parent


def shipped_models() -> dict[str, str]:
    """Names of the models, with the title of their cards."""
    cards = sorted(HOME.glob("*/README.md"))
    return {card.parent.name: title(card) for card in cards if (card.parent / "config.json").is_file()}


def title(card: Path) -> str:
    lines = card.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")


def shipped_folder(name: str) -> Path | None:
    """The folder of a shipped model, None where none has that name."""
    return HOME / name if name in shipped_models() else None


def kitchen_timeline() -> Path:
    """Labels of a whole Breakfast video, of a person whom the shipped models have not seen in training."""
    return HOME / "timelines" / "scrambled_egg.csv"
