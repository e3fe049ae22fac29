"""Names of public data sets, with the groups that their documentation states."""

from collections import defaultdict

import numpy as np
import pytest

from ushape.data.grouping.names import find_name_groups


def unlike(keys):
    """Images that show nothing about groups."""
    return False


def names(*patterns, **fields):
    """Fill all combinations of the fields into each pattern."""
    found = [{}]
    for field, values in fields.items():
        found = [{**one, field: value} for one in found for value in values]
    return list(dict.fromkeys(p.format(**one) for p in patterns for one in found))


def groups(ids, are_alike=unlike):
    """Return the key of each name; the name itself if names indicate no groups."""
    found = find_name_groups(ids, are_alike)
    return dict(zip(ids, (found.keys if found else ()) or ids, strict=True))


def lead(length):
    """The group is what is before this many characters."""
    return lambda name: name[:length]


def before(separator, times=1):
    return lambda name: separator.join(name.split(separator)[:times])


def after(separator):
    return lambda name: name.rpartition(separator)[2]


R = range
GROUPED = {
    "acdc": (names("patient{p:03d}_frame{f:02d}", p=R(1, 9), f=(1, 12)), before("_")),
    "mnms": (names("A_{p}_{f}", p=("A7O4T6", "B3O1S0", "E0M3U7"), f=("ED", "ES")), before("_", 2)),
    "two vendors": (

        names("A_{p}_{f}", p=("A7", "B3"), f=("ED", "ES"))
        + names("B_{p}_{f}", p=("C1", "D9"), f=("ED", "ES")),
        before("_", 2),
    ),
    "chase": (names("{c:02d}{e}", c=R(1, 12), e="LR"), lead(2)),
    "eyepacs": (names("{p}_{e}", p=(10, 13, 15, 16, 17), e=("left", "right")), before("_")),
    "eyes first": (names("{e}_{p}", e=("left", "right"), p=R(10, 20)), after("_")),
    "wsi patches": (names("slide{s}_x{x:04d}_y{x:04d}", s=R(1, 7), x=(0, 96, 192)), before("_")),
    "camelyon": (
        names("{k}_{s:03d}_{x}_512", k=("tumor", "normal"), s=R(4), x=R(3)), before("_", 2)),
    "camelyon17": (names("patient_{p:03d}_node_{n}", p=R(5), n=R(4)), before("_", 2)),
    "qupath": (names("s{s} [x={x},y=0,w=256,h=256]", s=R(1, 6), x=(0, 256)), before(" ")),
    "bids": (names("sub-{s:02d}_ses-{t}_T1w", s=R(1, 6), t=(1, 2)), before("_")),
    "bids folders": (
        names("sub-{s:02d}/anat/sub-{s:02d}_{c}", s=R(1, 6), c=("T1w", "T2w")),
        before("/"),
    ),
    "bids weightings": (names("sub-{s}_{c}", s=R(5), c=("T1w", "T2w", "FLAIR")), before("_")),
    "slices": (names("P{p:02d}_z{z:03d}", p=R(1, 7), z=R(12)), before("_")),
    "brats timepoints": (names("BraTS-GLI-{p:05d}-{t:03d}", p=R(5), t=(0, 1)), before("-", 3)),
    "lidc": (names("LIDC-IDRI-{p:04d}_nodule{n}_slice{s}", p=R(1, 5), n=R(2), s=R(2)), before("_")),
    "lgg": (
        names("TCGA_CS_{p}_19990101/TCGA_CS_{p}_19990101_{s}", p=(4941, 4942, 4943), s=R(1, 4)),
        before("_", 3),
    ),
    "tcga patches": (
        names("TCGA-{p}-01Z-00-DX1_{x}", p=("18-5592", "21-5784", "21-5786"), x=(1, 2)),
        before("-", 3),
    ),
    "tnbc": (names("{p:02d}_{s}", p=R(1, 12), s=R(1, 5)), before("_")),
    "nerves": (names("{p}_{s}", p=R(1, 48), s=R(1, 4)), before("_")),
    "masonry": (
        ["a_0_10", "a_0_11", "a_1_2", "a_1_3", "c_13_130", "c_13_131", "h_6_165"],
        before("_", 2),
    ),
    "carvana": (
        names("{c}_{v:02d}", c=("0cdf5b5d0ce1", "1ba9f4a1d2e3", "fff9b3a5373f"), v=R(1, 17)),
        before("_")),
    "cvc": ([f"seq{1 + n // 2:02d}_{7 * n:03d}" for n in R(20)], before("_")),
    "embryo": (["Emb01_t001", "Emb02_t201", "Emb02_t451", "Emb03_t301"], before("_")),
    "camvid": (
        names("{s}_{f}", s=("0001TP", "0006R0", "0016E5", "Seq05VD"), f=("006690", "f00930")),
        before("_"),
    ),
    "cityscapes": (
        names("{c}/{c}_{s:06d}_000019",
              c=("aachen", "bochum", "bremen", "cologne", "erfurt", "hamburg"), s=R(4)),
        before("/"),
    ),
    "kitti raw": (
        names("2011_09_26_drive_{d:04d}_sync_{f:010d}", d=(1, 2, 5), f=R(3)), before("_", 5)),
    "aeroscapes": (names("{s:06d}_{f:03d}", s=R(1, 5), f=R(1, 4)), before("_")),
    "uavid": (names("seq{s}/{f:06d}", s=R(1, 6), f=(0, 100)), before("/")),
    "cholecseg8k": (names("video{v:02d}_00080/frame_{f}_endo", v=(1, 9, 12), f=R(80, 84)),
                    before("_")),
    "endovis": (names("instrument_dataset_{v}/frame{f:03d}", v=R(1, 5), f=R(4)), before("/")),
    "chaos": (names("{p}/T1DUAL/IMG-0004-{s:05d}", p=(1, 2, 3, 5), s=R(3)), before("/")),
    "plates": (names("{w}_s{s}_w1", w=("A01", "A02", "B01", "B02"), s=(1, 2)), before("_")),
    "mice": (names("mouse{m}_section{s}", m=R(1, 6), s=R(1, 4)), before("_")),
    "experiments": (names("exp{e}_mouse{m}_z{s}", e=(1, 2), m=R(3), s=R(3)), before("_", 2)),
    "lettered patients": (names("patient{a}{n}_z{z:03d}", a="AB", n=(1, 2), z=R(3)), before("_")),
    "S1F1": (names("S{s}F{f}", s=R(1, 5), f=R(1, 4)), lead(2)),
    "fields of slides": (names("slide{s}_field{f}", s=R(1, 5), f=R(1, 4)), before("_")),
    "frame first": (names("frame{f:02d}_patient{p:02d}", f=(1, 12), p=R(5)), after("_")),
    "grid": (names("tile_{y}_{x}", y=R(4), x=R(5)), before("_", 2)),
    "dota": (names("P{p:04d}__1__{x}___0", p=(0, 3, 5), x=(0, 824)), before("__")),
    "crack500": (names("{d}_081011_1_{x}", d=("20160222", "20160225", "20160307"), x=(1, 361)),
                 before("_")),
    "days": (names("2021-05-{d:02d}_10-{m:02d}-00", d=(3, 4, 9), m=(1, 2)), before("_")),
    "drone days": (names("DJI_202105{d:02d}10{m:02d}00", d=(3, 4, 9), m=(1, 2)), lead(12)),
    "retouched": (names("Spectralis_{v:02d}_{b:03d}", v=R(1, 5), b=R(3)), before("_", 2)),
    "folders": (names("p{p}/{i}", p=R(1, 4), i=(1, 2)), before("/")),
    "one more file": ([*names("car{c}_{v:02d}", c=R(4), v=R(6)), "overview"], before("_")),
}  # fmt: skip


@pytest.mark.parametrize("scheme", GROUPED)
def test_names_indicate_the_groups_of(scheme):
    ids, group_of = GROUPED[scheme]
    expected, found = defaultdict(set), defaultdict(set)
    for name, key in groups(ids).items():
        expected[group_of(name)].add(name)
        found[key].add(name)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, expected.values()))
    assert len(found) < len(ids)


UNGROUPED = {
    "isbi": names("img_{n:03d}", n=R(30)),
    "numbers": names("{n:03d}", n=R(1, 30)),
    "isic": names("ISIC_{n:07d}", n=R(24306, 24320)),
    "brats20": names("BraTS20_Training_{n:03d}", n=R(1, 9)),
    "kits": names("case_{n:05d}", n=R(9)),
    "msd": names("hippocampus_{n:03d}", n=(1, 3, 4, 6)),
    "lits": names("volume-{n}", n=R(9)),
    "ph2": names("IMD{n:03d}", n=(2, 8, 14, 36)),
    "drive": names("{n}_training", n=R(21, 41)),
    "stare": names("im{n:04d}", n=R(1, 9)),
    "refuge": names("g{n:04d}", "n{n:04d}", n=R(1, 9)),
    "busi": [f"{k}/{k} ({n})" for k, m in (("benign", 6), ("malignant", 4), ("normal", 3))
             for n in R(1, m + 1)],
    "covid": names("{k}-{n}", k=("COVID", "Normal", "Viral Pneumonia", "Lung_Opacity"), n=R(1, 6)),
    "two conditions": names("{k}_{n:02d}", k=("control", "treated"), n=R(1, 21)),
    "treatments": names("{k}_{n:02d}", k=("dmso", "drug"), n=R(1, 21)),
    "grades": names("grade{g}/{n:03d}", g=(1, 2, 3), n=R(5)),
    "mvtec": names("{k}/{n:03d}", k=("good", "crack", "poke", "scratch"), n=R(5)),
    "voc": [f"{2007 + n % 5}_{n * 61:06d}" for n in R(40)],
    "kvasir": ["cju0qkwl35piu0993l0dewei2", "cju0qoxqj9q6s0835b43399p4", "cju0qx73cjw5707"],
    "dsb2018": ["00ae65c1c6631ae6f2be1a449902976e6eb8483bf6b0740d00530220832c6d3e",
                "0121d6759c5adb290c8e828fc882f37dfaf3663ec885c663859948c154a443ed"],
    "uuid": ["0000f77c-6257-4be5-8a1b-c7f7d3a7b2c1", "00a0f008-3c67-908e-b1c6-6a42f7d68ca0"],
    "deepglobe": names("{n}_sat", n=(119, 855, 2334)),
    "inria": names("{c}{n}", c=("austin", "chicago", "vienna"), n=R(1, 5)),
    "glas": names("{k}_{n}", k=("train", "testA", "testB"), n=R(1, 9)),
    "kitti": names("{n:06d}_10", n=R(9)),
    "people": ["anna", "berta", "clara"],
    "folders of one image": names("s{n:02d}/image", n=R(1, 9)),
    "usiigaci": names("set{n:02d}", n=(1, 4, 6, 9)),
    "hecktor": [f"{c}-{n:03d}" for c in ("CHUM", "CHUS") for n in R(1, 6)],
    "scans of a day": names("20210503_1012{s:02d}", s=R(10, 20)),
}  # fmt: skip


@pytest.mark.parametrize("scheme", UNGROUPED)
def test_names_indicate_no_groups_of(scheme):
    ids = UNGROUPED[scheme]
    found = find_name_groups(ids, unlike)
    assert found is None or (not found.keys and not found.coarse)


@pytest.mark.parametrize(
    ("ids", "coarse"),
    [
        (names("d{d}_{n:03d}", d=(1, 2), n=R(9)), {"d1", "d2"}),
        (
            names("{s}_{n:06d}", s=("1d4fbe33f3", "ec09336a6f"), n=R(9)),
            {"1d4fbe33f3", "ec09336a6f"},
        ),
        (names("{s:02d}/t{n:03d}", s=(1, 2), n=R(9)), {"01", "02"}),
    ],
)
def test_names_of_two_groups_are_too_few_to_split(ids, coarse):
    found = find_name_groups(ids, unlike)
    assert not found.keys
    assert set(found.coarse) == coarse


def test_names_of_two_slides_are_grouped_by_a_smaller_unit():
    ids = names("slide{s}_x{x:04d}_y{y:04d}", s=(1, 2), x=(0, 96), y=(0, 96))
    found = find_name_groups(ids, unlike)
    assert set(found.coarse) == {"slide1", "slide2"}
    assert found.keys == tuple(name.rpartition("_")[0] for name in ids)


def test_words_are_groups_if_their_images_are_alike():
    ids = names("{v}/{f:05d}", v=("bear", "blackswan", "camel", "drift"), f=R(6))
    videos = [name.partition("/")[0] for name in ids]
    assert set(groups(ids).values()) == set(ids)
    assert list(groups(ids, lambda keys: list(keys) == videos).values()) == videos


def test_equal_names_below_several_words_are_a_group_if_their_images_are_alike():
    ids = names("{m}/a{n:02d}", m=("plain", "contrast"), n=R(9))
    own = [name.partition("/")[2] for name in ids]
    assert set(groups(ids).values()) == set(ids)
    assert list(groups(ids, lambda keys: list(keys) == own).values()) == own


def test_names_do_not_depend_on_their_order():
    rng = np.random.default_rng(0)
    for ids, _ in GROUPED.values():
        shuffled = [ids[place] for place in rng.permutation(len(ids))]
        assert groups(shuffled) == groups(ids)
