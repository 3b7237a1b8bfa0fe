"""The public data sets of temporal activity: source, layout on disk, classes, splits, citation.

A layout says how a folder looks; folders.py reads folders, synthetic.py writes tiny look-alikes of every
layout, so that everything runs without a download. `mstcn` and `csv` are the layouts for one's own data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from framecast.data.annotations import read_mapping
from framecast.registry import did_you_mean


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BREAKFAST_CLASSES = _names(
    """SIL pour_cereals pour_milk stir_cereals take_bowl pour_coffee take_cup spoon_sugar
    stir_coffee pour_sugar pour_oil crack_egg add_saltnpepper fry_egg take_plate put_egg2plate
    take_eggs butter_pan take_knife cut_orange squeeze_orange pour_juice take_glass take_squeezer
    spoon_powder stir_milk spoon_flour stir_dough pour_dough2pan fry_pancake put_pancake2plate
    pour_flour cut_fruit put_fruit2bowl peel_fruit stir_fruit cut_bun smear_butter take_topping
    put_toppingOnTop put_bunTogether take_butter stir_egg pour_egg2pan stirfry_egg add_teabag
    pour_water stir_tea"""
)
SALADS_ACTIONS = _names(
    """cut_tomato place_tomato_into_bowl cut_cheese place_cheese_into_bowl cut_lettuce place_lettuce_into_bowl
    add_salt add_vinegar add_oil add_pepper mix_dressing peel_cucumber cut_cucumber place_cucumber_into_bowl
    add_dressing mix_ingredients serve_salad_onto_plate"""
)
SALADS_EVAL = _names(
    """add_dressing add_oil add_pepper cut mix_dressing mix_ingredients peel_cucumber place
    serve_salad_onto_plate"""
)
GTEA_CLASSES = _names("take open pour close shake scoop stir put fold spread background")
# Class names of the score sets, whose files hold numbers only. GTEA's order there is not documented.
TAS_SCORES_CLASSES = {
    "salads50_mid": ("background", *sorted(SALADS_ACTIONS)),
    "salads50_eval": ("background", *SALADS_EVAL),
}

MSTCN_TREE = """mapping.txt                        one class a line: <id> <name>
groundTruth/<video>.txt            one class name per frame
splits/{train,test}.split<k>.bundle   one <video>.txt a line (may be absent: use folds)
features/<video>.npy               (C, T) channel first, at the rate of the labels"""


@dataclass(frozen=True)
class Layout:
    """What is known of a data set without looking at the disk."""

    name: str
    title: str
    source: str  # where it comes from
    citation: str
    tree: str  # the folder, one file a line
    classes: tuple[str, ...] = ()  # () = read from the folder
    splits: tuple[int, ...] = ()  # official cross-validation splits, () = none
    feature_dim: int | None = None  # width of the features that papers use
    frames_per_second: float | None = None  # rate of the labels
    features: str = "features"  # folder of the features below the root
    protocol: str = "segmentation"  # data set name of its evaluation protocols
    note: str = ""


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "breakfast",
            "Breakfast Actions: 1712 videos of 52 people preparing 10 dishes, 48 classes",
            "https://zenodo.org/records/3625992 (labels, splits and I3D features)",
            "Kuehne, Arslan, Serre: The Language of Actions, CVPR 2014",
            MSTCN_TREE,
            BREAKFAST_CLASSES,
            splits=(1, 2, 3, 4),
            feature_dim=2048,
            frames_per_second=15.0,
            protocol="breakfast",
            note="Splits are by person; one scene is filmed by several cameras, never split by video.",
        ),
        Layout(
            "50salads",
            "50Salads: 25 people prepare two salads each, 17 actions with action_start and action_end",
            "https://zenodo.org/records/3625992 (labels, splits and I3D features)",
            "Stein, McKenna: Combining embedded accelerometers with computer vision, UbiComp 2013",
            MSTCN_TREE,
            (*SALADS_ACTIONS, "action_start", "action_end"),
            splits=(1, 2, 3, 4, 5),
            feature_dim=2048,
            frames_per_second=30.0,
            protocol="50salads",
            note="Papers read every second frame (sample_rate=2) and repeat the predictions.",
        ),
        Layout(
            "gtea",
            "Georgia Tech Egocentric Activities: 28 videos of 4 people, 10 actions and background",
            "https://zenodo.org/records/3625992 (labels, splits and I3D features)",
            "Fathi, Ren, Rehg: Learning to Recognize Objects in Egocentric Activities, CVPR 2011",
            MSTCN_TREE,
            GTEA_CLASSES,
            splits=(1, 2, 3, 4),
            feature_dim=2048,
            frames_per_second=15.0,
            protocol="gtea",
        ),
        Layout(
            "mstcn",
            "Any folder with mapping.txt, groundTruth/ and features/",
            "your own data",
            "",
            MSTCN_TREE,
        ),
        Layout(
            "assembly101",
            "Assembly101: people take toy vehicles apart and put them together, 202 coarse actions, 12 views",
            "https://assembly-101.github.io (annotations and TSM features)",
            "Sener et al.: Assembly101, CVPR 2022",
            """coarse-annotations/actions.csv     action_id, ..., action_cls
coarse-annotations/coarse_labels/{assembly,disassembly}_<sequence>.txt   start, end, action by tabs
train.csv, val.csv                 video_id, view, action_type, video_start_frame, video_end_frame
TSM_features/<sequence>/<view>/features.npy   (2048, T) at 30 frames per second""",
            feature_dim=2048,
            frames_per_second=30.0,
            features="TSM_features",
            protocol="assembly101",
            note="subset='test' is the validation set, which papers report; test labels are withheld.",
        ),
        Layout(
            "csv",
            "A CSV table of segments beside a folder of features",
            "your own data",
            "",
            """segments.csv                       video,start,end,label (frames) or video,start_s,end_s,label
mapping.txt                        may be absent: classes are then background and the labels found
features/<video>.npy               (C, T) channel first""",
        ),
        Layout(
            "tas_scores",
            "Frame-wise class scores of published models on 50Salads and GTEA, usable as small features",
            "https://github.com/colincsl/TemporalConvolutionalNetworks",
            "Lea, Flynn, Vidal, Reiter, Hager: Temporal Convolutional Networks, CVPR 2017",
            """svm/split<k>_<video>.npz           scores (T, K), pred (T,), label (T,): the default features
ed_tcn/, dilated_tcn/, tcnn/       the same of other models, at other frame rates""",
            features="svm",
            note="Split k tests on its own files and trains on those of all other splits.",
        ),
    )
}


def get_layout(name: str) -> Layout:
    """The layout of that name; an unknown one is refused with the nearest known name."""
    if name not in LAYOUTS:
        known = ", ".join(["auto", *LAYOUTS])
        raise ValueError(f"unknown layout {name!r}{did_you_mean(name, LAYOUTS)}; layouts are {known}")
    return LAYOUTS[name]


def find_csv(root: Path) -> Path | None:
    """The table of segments of a folder: the file itself, segments.csv, annotations.csv or the only CSV."""
    if root.suffix.lower() == ".csv":
        return root
    for name in ("segments.csv", "annotations.csv"):
        if (root / name).is_file():
            return root / name
    others = sorted(root.glob("*.csv"))
    return others[0] if len(others) == 1 else None


def detect_layout(root: str | Path) -> Layout:
    """The layout of a folder (or CSV file) by what lies in it; FileNotFoundError says what was looked for."""
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; give the folder that holds the annotations")
    if (root / "mapping.txt").is_file() and (root / "groundTruth").is_dir():
        return _named_mstcn(root)
    if next(root.glob("*/split*_*.npz"), None) is not None:
        return LAYOUTS["tas_scores"]
    if (root / "coarse-annotations").is_dir() or (root / "coarse_labels").is_dir():
        return LAYOUTS["assembly101"]
    if (root / "mapping.txt").is_file():
        packed = next(root.glob("groundTruth.*"), None)
        if packed is not None:
            raise FileNotFoundError(
                f"{packed} is still packed; unpack it with: tar -xf {packed.name} (in {root})"
            )
    if find_csv(root) is not None:
        return LAYOUTS["csv"]
    raise FileNotFoundError(
        f"{root} has no layout that we know; it needs mapping.txt with groundTruth/, or segments.csv, "
        "or coarse-annotations/, or */split<k>_<video>.npz; labelled images or clips need one folder per "
        "class, train.csv and val.csv, labels.csv, or train.npz"
    )


def _named_mstcn(root: Path) -> Layout:
    """Breakfast, 50Salads or GTEA where mapping.txt has exactly their classes, else the general layout."""
    found = set(read_mapping(root / "mapping.txt", report=lambda problem: None))
    for name in ("breakfast", "50salads", "gtea"):
        if found == set(LAYOUTS[name].classes):
            return LAYOUTS[name]
    return LAYOUTS["mstcn"]
