"""OME-Zarr images of tests, and label images that are added to them."""

import warnings

import zarr

from ushape.io.streaming.ome_labels import LabelStyle, open_label_writer

STYLE = LabelStyle(names={1: "cell", 2: "debris"}, colors={1: (255, 0, 0), 2: (0, 0, 255)})


def save_image(
    path, shape, names, version="0.4", levels=3, chunk=4, is_consolidated=False, **options
):
    """Writes an image whose axes y and x are halved at each level."""
    is_new = version == "0.5"
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if is_new else 2)
    options |= {"dimension_names": names} if is_new else {}
    datasets = []
    for n in range(levels):
        own = tuple(
            max(1, length >> n) if name in "yx" else length
            for name, length in zip(names, shape, strict=True)
        )
        group.create_array(f"s{n}", shape=own, dtype="u2", chunks=(chunk,) * len(own), **options)
        scale = [2.0**n * 0.5 if name in "yx" else 3.0 for name in names]
        shift = [0.25 * n] * len(names)
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": f"s{n}", "coordinateTransformations": steps})
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": name, "type": kinds.get(name, "space")} for name in names]
    image = {"axes": axes, "datasets": datasets}
    if is_new:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": version, **image}]
    if is_consolidated:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr 3 does not define it yet.
            zarr.consolidate_metadata(str(path), zarr_format=2 + is_new)
    return group


def add_labels(path, codes, heights=(3,), name="x", style=STYLE):
    """Adds a label image in bands of these heights, again and again."""
    with open_label_writer(path, name, "uint8", style) as writer:
        done = number = 0
        while done < len(codes):
            height = heights[number % len(heights)]
            writer.write(codes[done : done + height])
            done, number = done + height, number + 1
