"""DICOM slices and series for tests."""

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset

SLICES = np.random.default_rng(0).integers(0, 4000, size=(5, 6, 8), dtype=np.uint16)
COSINES = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
NORMAL = np.cross(COSINES[:3], COSINES[3:])
NAMES_OF_STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName")
STUDY = {
    "StudyInstanceUID": "1.2.4",
    "FrameOfReferenceUID": "1.2.5",
    **dict.fromkeys(("PatientName", "PatientBirthDate", "PatientSex", *NAMES_OF_STUDY), ""),
}
"""Elements that a segmentation of an image repeats."""


def save(path, pixels, **elements):
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = pydicom.uid.CTImageStorage
    data.SOPInstanceUID = "1.2." + "".join(str(ord(letter)) for letter in path.stem)
    data.Modality, data.PatientID, data.SeriesInstanceUID = "CT", "anna", "1.2.3"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored = 16, 12
    data.HighBit, data.PixelRepresentation = 11, 0
    data.PixelSpacing, data.SliceThickness = [0.75, 0.5], 2
    data.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def save_series(folder, places=(0, 1, 2, 3, 4), slices=SLICES, **elements):
    folder.mkdir()
    for name, place in enumerate(places):
        position = [float(number) for number in np.array([5, 6, 7]) + 2.5 * place * NORMAL]
        save(
            folder / f"{(7 * name) % 10}.dcm",  # The order of names is not that of places.
            slices[name % len(slices)],
            **{
                "ImageOrientationPatient": COSINES,
                "ImagePositionPatient": [round(number, 6) for number in position],
                "RescaleIntercept": -1024,
                "RescaleSlope": 1,
                **elements,
            },
        )


def save_frames(path, places, slices=SLICES, **elements):
    """Saves an enhanced CT of one file, with the positions of its frames in slices."""
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=COSINES)],
    )
    save(
        path,
        slices,
        SOPClassUID=pydicom.uid.EnhancedCTImageStorage,
        NumberOfFrames=len(slices),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[
            item(PlanePositionSequence=[place_of(2.5 * place, (5, 6, 7))]) for place in places
        ],
        **elements,
    )


def item(**values):
    data = pydicom.Dataset()
    for name, value in values.items():
        setattr(data, name, value)
    return data


def place_of(z, start):
    return item(ImagePositionPatient=[round(float(n), 6) for n in start + z * NORMAL])


def save_segmentation(path, frames, segments, start=(0, 0, 0), **elements):
    """Saves a binary DICOM SEG.

    Args:
        frames: Position along the normal in mm, segment number, and pixels (y, x) of each frame.
        segments: Names of the segments, from number 1.
        start: Position 0 along the normal, (x, y, z) in mm.
    """

    measures = item(PixelSpacing=[1, 1], SliceThickness=2.5, SpacingBetweenSlices=2.5)
    masks = np.stack([mask for _, _, mask in frames]).astype(bool)
    bits = np.packbits(masks.ravel(), bitorder="little").tobytes()
    save(
        path,
        masks,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4",
        Modality="SEG",
        NumberOfFrames=len(frames),
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        SegmentSequence=[
            item(SegmentNumber=number, SegmentLabel=name)
            for number, name in enumerate(segments, start=1)
        ],
        SharedFunctionalGroupsSequence=[
            item(
                PixelMeasuresSequence=[measures],
                PlaneOrientationSequence=[item(ImageOrientationPatient=COSINES)],
            )
        ],
        PerFrameFunctionalGroupsSequence=[
            item(
                PlanePositionSequence=[place_of(z, start)],
                SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
            )
            for z, number, _ in frames
        ],
        PixelData=bits + b"\0" * (len(bits) % 2),
        **elements,
    )


def save_structures(path, rois, series=("1.2.3",), frame="1.2.5", **elements):
    """Saves an RTSTRUCT.

    Args:
        rois: Name and contours of each region, from number 1; a contour is an array (n, 3) in mm,
            or a data set.
    """
    referenced = item(
        FrameOfReferenceUID=frame,
        RTReferencedStudySequence=[
            item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=one) for one in series])
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(
        path,
        np.zeros((1, 1), np.uint16),
        SOPClassUID=pydicom.uid.RTStructureSetStorage,
        Modality="RTSTRUCT",
        SeriesInstanceUID="1.2.99",
        ReferencedFrameOfReferenceSequence=[referenced],
        StructureSetROISequence=[
            item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
            for number, (name, _) in enumerate(rois, start=1)
        ],
        ROIContourSequence=[
            item(
                ReferencedROINumber=number,
                ContourSequence=[
                    one if isinstance(one, pydicom.Dataset) else contour(one) for one in contours
                ],
            )
            for number, (_, contours) in enumerate(rois, start=1)
        ],
        **elements,
    )
    data = pydicom.dcmread(path)
    del data.PixelData, data.Rows, data.Columns
    data.save_as(path)


def contour(points, kind="CLOSED_PLANAR"):
    points = np.asarray(points)
    return item(
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points),
        ContourData=[f"{number:.6f}"[:16] for number in points.ravel()],
    )


def on_series(points, place):
    """Returns points in mm, of (x, y) in pixels on a slice that `save_series` has written."""
    x, y = np.asarray(points, dtype=float).T[..., None]
    start = np.array([5, 6, 7]) + 2.5 * place * NORMAL
    return start + 0.5 * x * np.array(COSINES[:3]) + 0.75 * y * np.array(COSINES[3:])


def box(left, top, right, bottom, place=0.0):
    """Returns the contour in mm of the pixels from the first ones to before the last ones."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - 0.5
    return on_series(corners, place)
