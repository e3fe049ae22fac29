"""Words in the names of images that tell what the adjacent field means."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SUBJECTS = _words(
    "patient pat subject subj sub case participant person volunteer donor child mouse mice rat "
    "animal fish fly worm embryo emb specimen slide wsi biopsy video vid seq sequence clip movie "
    "recording scene drive flight dish well plate plot verse"
)
"""Words before a field that names what images belong to."""

INDICES = _words(
    "x y z t c w f frame fr slice sl section sec field fov tile patch crop roi row col column "
    "time tp timepoint ses session visit view layer plane depth pos position page part"
)
"""Words before a field that counts the images of one subject."""

VIEWS = _words(
    "left right l r od os ed es pre post before after t1 t2 t1w t2w t1ce t1c flair dwi adc pd "
    "ax axial cor coronal sag sagittal front back top bottom systole diastole red green blue nir "
    "rgb dapi gfp"
)
"""Words for several images of one subject."""

KINDS = _words(
    "control ctrl treated untreated treatment normal abnormal benign malignant healthy diseased "
    "disease tumor tumour cancer positive negative pos neg wt ko mutant good bad defect mild "
    "moderate severe covid pneumonia train training val validation test testing"
)
"""Words for conditions or diagnoses, which many subjects share."""

KIND_LABELS = _words("class grade stage type category label fold birads")
"""Words before a number that is a condition or diagnosis."""
