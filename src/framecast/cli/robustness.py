"""`evaluate --corruptions` and `--jpeg`: accuracy on worse and worse pixels, as table, files and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from framecast.cli.output import check_out, pick_device, show, show_json, table
from framecast.progress import track

if TYPE_CHECKING:
    from framecast.infer.robustness import Robustness
    from framecast.viz.robustness import RobustnessCurves


class CorruptionsAlone(TyperCommand):
    """A command whose `--corruptions` means all of them where no names follow."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        filled: list[str] = []
        for i, word in enumerate(args):
            filled.append(word)
            if word == "--corruptions" and (i + 1 == len(args) or args[i + 1].startswith("-")):
                filled.append("all")
        return super().parse_args(ctx, filled)


def evaluate_robustness(
    run: str,
    *,
    corruptions: str | None,
    jpeg: bool,
    severities: str | None,
    compare: Sequence[str],
    data: Path | None,
    split: int | None,
    protocol: list[str] | None,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure what is asked for and not known yet; print, write and draw all that is known."""
    from framecast.data.corruptions import choose_corruptions
    from framecast.infer.robustness import Robustness, measure_robustness, wanted_variants

    if corruptions is None and not jpeg:
        given = "--severities" if severities is not None else "--compare"
        raise ValueError(f"{given} goes with --corruptions or --jpeg")
    if len(protocol or []) > 1:
        raise ValueError("corruptions are measured under one protocol; give --protocol once")
    names = choose_corruptions(corruptions) if corruptions is not None else ()
    keys = wanted_variants(names, severity_numbers(severities), jpeg_curve=jpeg)
    path = out or (Path(run) if Path(run).is_dir() else Path()) / "robustness.json"
    if path.suffix != ".json" or path.is_dir():
        raise ValueError(f"--out {path} is no .json file; table and pictures get names beside it")
    check_out(path.parent)
    others = [Robustness.read(other) for other in compare]
    result = measure_robustness(
        run,
        keys,
        path=path,
        data=data,
        split=split,
        protocol=protocol[0] if protocol else None,
        device=pick_device(device),
        track=lambda items, title: track(items, title, quiet=as_json),
    )
    shown = comparable([result, *others])
    written = [path, path.with_suffix(".csv"), *draw(shown, path)]
    if as_json:
        models = [{"model": r.model, **r.summary()} for r in shown[1:]]
        show_json(result.to_json() | {"compared": models, "written": written})
        return
    show("\n\n".join(as_text(result, shown)))
    show(f"wrote {', '.join(p.name for p in written)} into {path.parent}")


def severity_numbers(text: str | None) -> tuple[int, ...]:
    """ "1,3,5" -> (1, 3, 5); all five without a text."""
    parts = ["1", "2", "3", "4", "5"] if text is None else [part.strip() for part in text.split(",")]
    if not all(part in ("1", "2", "3", "4", "5") for part in parts):
        raise ValueError(f"--severities {text!r} are not numbers from 1 to 5 such as 1,3,5")
    return tuple(sorted({int(part) for part in parts}))


def comparable(results: list[Robustness]) -> list[Robustness]:
    """Several models restricted to the variants that all have; ValueError where they saw other data."""
    first = results[0]
    for other in results[1:]:
        facts = [(r.kind, r.num_items, r.protocol) for r in (first, other)]
        if facts[0] != facts[1]:
            seen = [f"{count} {kind}s under {protocol}" for kind, count, protocol in facts]
            raise ValueError(
                f"{first.model} was measured on {seen[0]}, {other.model} on {seen[1]}; "
                "evaluate both on the same data under one protocol"
            )
    shared = set(first.scores).intersection(*(r.scores for r in results))
    return [r.only(shared) for r in results] if len(results) > 1 else results


# --- Text --------------------------------------------------------------------------------------------------


def as_text(result: Robustness, shown: list[Robustness]) -> Iterable[str]:
    """The table of corruptions, the JPEG curve, the models beside each other."""
    rows = result.corruptions()
    if rows:
        columns = sorted({s for found in rows.values() for s in found})
        body = []
        for name, found in rows.items():
            scores = [_one(found.get(s)) for s in columns]
            body.append([name, *scores, _one(_mean(found)), _one(result.corruption_error(name))])
        yield table(("top-1 at severity", *map(str, columns), "mean", "CE"), body)
    if curve := result.jpeg_curve():
        yield table(
            ("JPEG quality", "clean", *map(str, curve)),
            [["top-1", _one(result.clean), *(_one(v) for v in curve.values())]],
        )
    yield summary_line(result)
    if len(shown) > 1:
        yield comparison(shown)


def summary_line(result: Robustness) -> str:
    facts: dict[str, Any] = result.summary()
    many = f"{result.num_items} {result.kind}s of {result.data}"
    text = f"clean top-1 {_one(result.clean)} on {many} ({result.protocol})"
    if facts["corrupted_top1"] is None:
        return text
    text += f"\nmean corrupted top-1 {_one(facts['corrupted_top1'])}, {_one(facts['drop'])} points less"
    if facts["relative_drop"] is not None:
        text += f" ({facts['relative_drop']:.0f} % of clean)"
    text += f", over {facts['num_corrupted_variants']} variants"
    if facts["mce"] is not None:
        text += f"\nmCE {_one(facts['mce'])} (AlexNet on ImageNet = 100)"
    return text


def comparison(shown: list[Robustness]) -> str:
    body = []
    for one in shown:
        facts: dict[str, Any] = one.summary()
        keys = ("clean_top1", "corrupted_top1", "drop", "relative_drop", "mce")
        jpeg = one.jpeg_curve()
        body.append([one.model, *(_one(facts[k]) for k in keys), _one(_mean(jpeg))])
    titles = ("model", "clean", "corrupted", "drop", "drop in %", "mCE", "mean JPEG curve")
    return table(titles, body)


def _mean(values: dict[int, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _one(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


# --- Pictures ----------------------------------------------------------------------------------------------


def draw(shown: list[Robustness], path: Path) -> list[Path]:
    """Beside the JSON file: a panel per corruption, and the JPEG curve where it was measured."""
    from framecast.viz.robustness import draw_jpeg, draw_severities

    curves = curves_of(shown)
    written = []
    if set(curves[0].corruptions) - ({"jpeg"} if curves[0].jpeg else set()):
        title = "Accuracy under corruption"
        written.append(draw_severities(curves, path.with_suffix(".png"), title=title))
    if all(c.jpeg for c in curves):
        picture = path.with_name(f"{path.stem}_jpeg.png")
        written.append(draw_jpeg(curves, picture, title="Accuracy under JPEG compression"))
    return written


def curves_of(shown: list[Robustness]) -> list[RobustnessCurves]:
    """What the pictures show, under the shortest names that tell the models apart."""
    from framecast.viz.robustness import RobustnessCurves

    names = [Path(r.model).name or r.model for r in shown]
    names = names if len(set(names)) == len(names) else [r.model for r in shown]
    return [
        RobustnessCurves(name, r.clean, r.corruptions(), r.jpeg_curve())
        for name, r in zip(names, shown, strict=True)
    ]
