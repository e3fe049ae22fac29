"""Plug-in of napari: open images, predict them with a run, and save label layers as masks.

`napari.yaml` lists what napari calls. No module imports napari when it is loaded, so that all
functions can be used and tested without it.
"""
