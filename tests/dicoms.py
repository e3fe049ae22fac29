"""DICOM slices and series for tests."""

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset

SLICES = np.random.default_rng(0).integers(0, 4000, size=(5, 6, 8), dtype=np.uint16)
COSINES = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
NORMAL = np.cross(COSINES[:3], COSINES[3:])


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
